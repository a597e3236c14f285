"""Runs jobs on a SLURM cluster: job arrays, whose elements start from their folders on a shared file system.

SLURM's queue decides when they run, `sweep.slots` how many at a time. An element has a task for each device
of its trainer. Jobs that an earlier process submitted are found in the queue by the array's name, made from
the sweep's folder, and their index, made from the job's number: there is no other record that a kill could
lose. A requeued element resumes its run; one that reaches its time limit saves before and is requeued. With
`sweep.detach=true`, or when the connection is lost (SIGHUP), the command ends and leaves its jobs in the
queue.

Note: this uses sbatch instead of submitit, because submitit starts its jobs from a pickle (a folder would run
code), ignores SIGTERM (scancel and a requeue would lose unsaved work), and cannot find the jobs that a killed
process has submitted.
"""

import hashlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restora.config import ConfigError
from restora.run_state import read_record
from restora.sweeping import ending
from restora.sweeping.executor import Executor, Running, Source
from restora.sweeping.job import SAVED
from restora.sweeping.plan import Job, Plan

LOG = "slurm.log"
_POLL_SECONDS = 2.0
_INDICES = 1000
"""Most elements of an array; SLURM's default limit is 1001."""
_SAVED_BEFORE = 120
"""A job is asked to save and end this many seconds before the time limit."""
_OURS = ("array", "job-name", "parsable", "wrap", "ntasks-per-node", "nodes", "output", "open-mode")
_OVER = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED"),
)


@dataclass(frozen=True)
class Needs:
    """The resources for sbatch; jobs with the same needs form one array."""

    nodes: int
    tasks: int
    gpus: bool
    threads: int | None
    block: int
    """Job numbers divided by `_INDICES`."""
    again: bool = False


def call(*words: str) -> str:
    """The output of a SLURM command. Raises `ConfigError` with its message if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise ConfigError(f"sweep.executor=slurm needs {words[0]}, which clusters have") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{words[0]} did not answer within two minutes") from error
    if done.returncode:
        raise ConfigError(f"{words[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def name_of(plan: Plan, block: int) -> str:
    """The name of the sweep's arrays: its folder's name, a hash of the full path, and the block."""
    folder = plan.folder.resolve()
    known = re.sub(r"[^\w.-]", "_", folder.name)
    return f"{known}-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}-{block}"


def elements(plan: Plan) -> dict[str, tuple[str, str]]:
    """Job name -> (SLURM number, state) of all the sweep's elements that the queue still lists."""
    blocks = {job.number // _INDICES for job in plan.jobs}
    names = {name_of(plan, block): block for block in blocks}
    by_number = {job.number: job.name for job in plan.jobs}
    listed: list[tuple[bool, int, str, str, str]] = []
    query = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%F %K %T %j")
    for line in call(*query, f"--name={','.join(names)}").splitlines():
        array, index, state, name = line.split(maxsplit=3)
        job = by_number.get(names[name] * _INDICES + int(index)) if index.isdigit() else None
        if job is not None:
            listed.append((state not in _OVER, int(array), job, f"{array}_{index}", state))
    return {job: (number, state) for _, _, job, number, state in sorted(listed)}  # newest, live ones first


def queued(plan: Plan) -> dict[str, str]:
    """Job name -> SLURM number of the elements that wait or run."""
    return {name: number for name, (number, state) in elements(plan).items() if state not in _OVER}


def cancel(numbers: Iterable[str], *, kill: bool = False) -> None:
    """Asks elements to save and end, or kills them."""
    if listed := list(numbers):
        how = ["--signal=KILL"] if kill else []
        subprocess.run(["scancel", "--quiet", *how, *listed], check=False, stderr=subprocess.DEVNULL)


@dataclass
class Slurm(Executor):
    """`options` are for sbatch, such as partition and time; `parallel` limits the elements at a time."""

    options: Mapping[str, Any] = field(default_factory=dict)
    detach: bool = False
    parallel: int | None = None
    there: dict[str, str] = field(default_factory=dict)
    """Job name -> SLURM number, from the last query."""
    to_hand_in: list[tuple[Running, bool]] = field(default_factory=list)

    def _work(self, source: Source) -> None:
        if ours := [key for key in map(_dashed, self.options) if key in _OURS]:
            raise ConfigError(f"sweep.options.{ours[0]} is set by the sweep itself: leave it out")
        self.there = queued(self.plan)
        while True:
            self._fill(source)
            self._hand_in()
            leaves = self.asked == signal.SIGHUP or (self.detach and self.asked is None)
            if not self.waiting and (leaves or not self.running):
                break
            self._pause()
            self._hear(source)
            self._look(source)
        if self.running:
            self.teller.say(
                f"{len(self.running)} jobs are in SLURM's queue, and continue without this command"
            )

    def _pause(self) -> None:
        until = time.monotonic() + _POLL_SECONDS
        while time.monotonic() < until:
            self._stop_if_asked()
            time.sleep(0.1)

    def _hear(self, source: Source) -> None:
        try:
            known = elements(self.plan)
        except ConfigError as error:  # the controller may be away for a while
            self.teller.say(str(error))
            return
        self.there = {name: number for name, (number, state) in known.items() if state not in _OVER}
        for key, running in list(self.running.items()):
            if running.job.name not in self.there:
                number, state = known.get(running.job.name, (None, "gone"))
                self._gone(key, state if number == running.handle else "gone", source)

    def _gone(self, key: str, state: str, source: Source) -> None:
        running = self.running[key]
        folder, name = self.plan.path(running.job), running.job.name
        status = read_record(folder).get("status")
        unasked = state != "CANCELLED" and self.asked is None and running.pruned is None
        if status == "stopped" and unasked and self.attempts.get(name, 0) <= self.retries:
            self.attempts[name] = self.attempts.get(name, 0) + 1
            self.teller.say(f"{name} was stopped by SLURM ({state}): it is resumed")
            self.waiting.append(self.running.pop(key).job)
            return
        if status == "stopped" and unasked:
            self.teller.say(
                f"{name} was stopped by SLURM ({state}) again: give it more time, sweep.options.time"
            )
        if status == "queued" and self.asked is None:
            ending.failed(folder, f"ended by SLURM before it started ({state}): see {self.plan.folder / LOG}")
        elif status == "running" and self.asked is None:
            ending.failed(folder, f"ended by SLURM ({state})", killed=True)
        self._ended(key, 0, source)

    # --- submitting ---

    def _is_busy(self, job: Job) -> bool:
        return job.name not in self.there and super()._is_busy(job)

    def _is_done(self, job: Job, source: Source) -> bool:
        return job.name not in self.there and super()._is_done(job, source)

    def _launch(self, running: Running, *, again: bool) -> None:
        running.handle = self.there.get(running.job.name)
        if running.handle is None:
            self.to_hand_in.append((running, again))

    def _hand_in(self) -> None:
        arrays: dict[Needs, list[Running]] = {}
        for running, again in self.to_hand_in:
            arrays.setdefault(self._needs(running.job, again=again), []).append(running)
        self.to_hand_in.clear()
        for needs, members in arrays.items():
            array = call(*self._sbatch(needs, members)).strip().partition(";")[0]
            for running in members:
                running.handle = f"{array}_{running.job.number % _INDICES}"
                self.there[running.job.name] = running.handle

    def _needs(self, job: Job, *, again: bool) -> Needs:
        config = read_record(self.plan.path(job)).get("config") or {}
        trainer = config.get("trainer") or {}
        return Needs(
            nodes=int(trainer.get("num_nodes") or 1),
            tasks=tasks_of(trainer),
            gpus=trainer.get("accelerator") in ("gpu", "cuda"),
            threads=config.get("threads"),
            block=job.number // _INDICES,
            again=again,
        )

    def _sbatch(self, needs: Needs, members: list[Running]) -> list[str]:
        folder = self.plan.folder.resolve()
        indices = ",".join(str(running.job.number % _INDICES) for running in members)
        options: dict[str, Any] = {
            "requeue": None,
            "signal": f"B:USR1@{_SAVED_BEFORE}",
            "chdir": self.plan.cwd,
            **({"cpus-per-task": needs.threads} if needs.threads else {}),
            **({"gpus-per-node": needs.tasks} if needs.gpus else {}),
            **{_dashed(key): value for key, value in self.options.items()},
            "array": f"{indices}%{self.parallel}" if self.parallel else indices,
            "job-name": name_of(self.plan, needs.block),
            "nodes": needs.nodes,
            "ntasks-per-node": needs.tasks,
            "output": _literal(folder / LOG),
            "open-mode": "append",
        }
        words = [f"--{key}" if value is None else f"--{key}={value}" for key, value in options.items()]
        return ["sbatch", "--parsable", *words, f"--wrap={_script(folder, needs)}"]

    # --- stopping ---

    def _ask(self, signum: int) -> None:
        if signum == signal.SIGHUP and self.asked is None:  # a lost connection stops no queued job
            self.asked = signum
            self.waiting.clear()
            return
        first = self.asked is None
        self.asked = self.asked or signum
        self.waiting.clear()
        self.to_hand_in.clear()
        cancel([str(running.handle) for running in self.running.values() if running.handle], kill=not first)
        for key in [key for key, running in self.running.items() if running.handle is None]:
            del self.running[key]

    def _end(self, running: Running, number: int) -> None:
        cancel([str(running.handle)], kill=number == signal.SIGKILL)


def tasks_of(trainer: Mapping[str, Any]) -> int:
    """Tasks on a node, one for each device. Raises `ConfigError` if the number of devices is not set."""
    devices = trainer.get("devices")
    if isinstance(devices, int) and devices > 0:
        return devices
    if devices in (None, "auto") and trainer.get("accelerator") == "cpu":
        return 1
    if isinstance(devices, list | tuple):
        return len(devices)
    raise ConfigError(
        f"SLURM starts one task for each device, and trainer.devices={devices} does not say how many there "
        "are on a node: set trainer.devices=N"
    )


def _literal(path: Path) -> str:
    """A path for sbatch's --output, in which %j and others are patterns, unless it has a backslash."""
    name = str(path)
    return name.replace("\\", "\\\\") if "\\" in name else name.replace("%", "%%")


def _dashed(key: object) -> str:
    return str(key).replace("_", "-")


def _script(folder: Path, needs: Needs) -> str:
    """The script of an element: runs the job, asks it to save before the time limit, and requeues it then.

    A job that has saved nothing is not requeued: if the limit were too short for a first checkpoint, it would
    be requeued without end.
    """
    number = f"$(({needs.block * _INDICES} + SLURM_ARRAY_TASK_ID))"
    saved = f"{shlex.quote(str(folder))}/{SAVED}{number}"
    job = shlex.join([sys.executable, "-P", "-m", "restora.sweeping.job", str(folder)])
    again = " --retry" if needs.again else ""
    return "\n".join(
        [
            "trap 'late=1; scancel --signal=TERM $SLURM_JOB_ID' USR1",
            f"rm -f {saved}",
            "srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \\",
            f"  {job} --job {number}{again} &",
            "wait $!; code=$?",
            'if [ -n "$late" ]; then',
            "  wait $!; code=$?",
            f"  [ $code = 143 ] && [ -e {saved} ] && scontrol requeue $SLURM_JOB_ID",
            "fi",
            "exit $code",
        ]
    )
