"""Runs jobs on a Ray cluster.

The cluster exists already (`RAY_ADDRESS`, or sweep.options.address), or is started on this machine and ends
with the sweep. Ray decides where a job runs. There it is a separate process, started from its folder on a
shared file system, with its share of cores and its own GPUs. However the command ends, Ray ends its workers,
and their jobs save and stop.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from restora.config import ConfigError
from restora.run_state import read_record
from restora.sweeping import ending
from restora.sweeping.executor import Executor, Running, Slots, Source
from restora.sweeping.plan import Job

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long a job may take to save and end."""


def train(words: list[str]) -> int:
    """Runs on a Ray worker: a job in a separate process, stopped when Ray cancels it; returns its status."""
    parent = ["--parent", str(os.getpid())]
    command = [sys.executable, "-P", "-m", "restora.sweeping.job", *words, *parent]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:  # cancelled
            process.terminate()
            try:
                return process.wait(_PATIENCE_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait()


def connected(options: Mapping[str, Any]) -> Any:
    """The module `ray`, connected to a cluster. Raises `ConfigError` if it cannot connect."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError('sweep.executor=ray needs Ray: pip install "restora[ray]"') from error
    usual = {"log_to_driver": False, "logging_level": "warning"}
    if not (options.get("address") or os.environ.get("RAY_ADDRESS")):
        # without an address Ray waits half a minute for this machine's last cluster, even if that was killed
        usual |= {"include_dashboard": False, "address": "local"}
    try:
        ray.init(**{**usual, **options})
    except Exception as error:  # also a bare Exception, if its processes start too slowly
        raise ConfigError(f"Ray: {error}") from error
    return ray


def gpus_of(nodes: list[dict[str, float]], config: Mapping[str, Any]) -> int:
    """The number of GPUs of a job. Raises `ConfigError` if no machine has as many."""
    trainer = config.get("trainer") or {}
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        return 0
    most, devices = max(int(node.get("GPU", 0)) for node in nodes), trainer.get("devices")
    each = devices if isinstance(devices, int) and devices > 0 else max(most, 1)
    if each > most:
        raise ConfigError(f"no machine of the Ray cluster has {each} GPUs: set trainer.devices")
    return each


def share(nodes: list[dict[str, float]], gpus: set[int], count: int | None) -> tuple[int, int]:
    """(jobs at a time, cores of each) on nodes with their `CPU` and `GPU`; `gpus` are the jobs' requests."""
    cores = [max(int(node.get("CPU", 1)), 1) for node in nodes]
    fitting = [
        sum(int(node.get("GPU", 0)) // each for node in nodes) if each else len(nodes) for each in gpus
    ]
    at_once = count or max(fitting)
    return at_once, max(1, min(sum(cores) // at_once, *cores))


@dataclass
class OnRay(Executor):
    """`options` are for `ray.init`; `count` jobs run at a time, by default as many as GPUs or machines allow.

    `config` is a job's configuration, used while the plan has no jobs yet.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None
    ray: Any = None
    nodes: list[dict[str, float]] = field(default_factory=list)

    def _work(self, source: Source) -> None:
        self.ray = connected(self.options)
        try:
            self.nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            gpus = {self._gpus(job) for job in self.plan.jobs} or {gpus_of(self.nodes, self.config)}
            self.slots = Slots(*share(self.nodes, gpus, self.count))
            while True:
                self._fill(source)
                if not (self.running or self.waiting):
                    return
                self._stop_if_asked()
                self._hear(source)
                self._look(source)
        finally:
            self.ray.shutdown()

    def _gpus(self, job: Job) -> int:
        return gpus_of(self.nodes, read_record(self.plan.path(job)).get("config") or {})

    def _launch(self, running: Running, *, again: bool) -> None:
        words = [str(self.plan.folder.resolve()), "--job", str(running.job.number)]
        words += ["--threads", str(self.slots.threads), *(["--retry"] if again else [])]
        remote = self.ray.remote(train).options(
            num_cpus=self.slots.threads,
            num_gpus=self._gpus(running.job),
            max_retries=0,
            name=running.job.name,
        )
        running.handle = remote.remote(words)

    def _hear(self, source: Source) -> None:
        handles = {running.handle: key for key, running in self.running.items()}
        if not handles:
            time.sleep(_POLL_SECONDS)
            return
        done, _ = self.ray.wait(list(handles), num_returns=1, timeout=_POLL_SECONDS)
        for handle in done:
            try:
                code = int(self.ray.get(handle))
            except self.ray.exceptions.RayError as error:
                self._lost(handles[handle], error, source)
            else:
                self._ended(handles[handle], code, source)

    def _lost(self, key: str, error: Exception, source: Source) -> None:
        """Queues a job again whose Ray worker was lost; `retries` times and once more, then it has failed."""
        job = self.running[key].job
        lost = self.attempts.get(job.name, 0) + 1
        if self.asked is not None or self.running[key].pruned is not None:
            self._ended(key, 0, source)
            return
        if lost > self.retries + 1:
            ending.failed(self.plan.path(job), f"Ray: {type(error).__name__}", killed=True)
            self._ended(key, 0, source)
            return
        self.attempts[job.name] = lost
        self.teller.say(f"{job.name}: its Ray worker was lost ({type(error).__name__}): it is resumed")
        self.waiting.append(self.running.pop(key).job)

    def _is_busy(self, job: Job) -> bool:
        """Also true while a job that lost its worker is saving, perhaps on another machine."""
        return super()._is_busy(job) or ending.status(self.plan.path(job))[0] == "running"

    def _end(self, running: Running, number: int) -> None:
        if running.handle is not None:
            self.ray.cancel(running.handle, force=number == signal.SIGKILL)
