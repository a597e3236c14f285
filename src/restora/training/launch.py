"""Starts, watches and ends the worker processes (rank 1, 2, ...) of a distributed run on one machine.

Lightning would start them by running this process's command line again. In a sweep, under a launcher or
behind a console script with sub-commands, that command line is not the run. So each worker is `worker.py
RUN_FOLDER`, which reads the run's recorded configuration and joins. A worker that fails writes its error to
the run folder for process 0, which itself only sees a closed connection. If torchrun or SLURM start the
processes, only these notes are used.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from restora.files import read_json, write_json

_LOOKED_EVERY = 0.5
_GRACE_SECONDS = 20.0
"""How long process 0 may take to notice by itself that a worker is gone."""
_NOTE_SECONDS = 3.0
_END_SECONDS = {True: 30.0, False: 5.0}
"""How long the workers may take to end, by whether the run has finished."""
_PR_SET_PDEATHSIG = 1
_PARENT = "RESTORA_FIRST_PROCESS"


class ProcessFailed(ValueError):
    """Another process of the run has failed; `summary` is one line, the message has its traceback."""

    def __init__(self, rank: int, summary: str, trace: str = "") -> None:
        self.summary = f"process {rank}: {summary}"
        super().__init__(f"process {rank} of the run failed: {trace.strip() or summary}")


class Workers(_SubprocessScriptLauncher):
    """Starts the workers (rank 1, 2, …) of a run, watches and ends them.

    `lost` is called, from a thread, when a worker is gone and process 0 hangs; it records the failure.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        folder: Path,
        plugins: Sequence[str],
        lost: Callable[[ProcessFailed], None],
    ) -> None:
        environment: Any = getattr(trainer.strategy, "cluster_environment", None)
        super().__init__(environment, trainer.num_devices, trainer.num_nodes)
        self.folder, self.plugins, self.lost = folder.resolve(), list(plugins), lost
        self.left = threading.Event()
        """Set when process 0 has left the training."""

    def launch(self, function: Any, *args: Any, trainer: Any = None, **options: Any) -> Any:
        """Calls the function; the first call also starts the workers."""
        if not self.cluster_environment.creates_processes_externally:
            self._start()
            threading.Thread(target=self._watch, daemon=True, name="watch-processes").start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **options)

    def _start(self) -> None:
        environment: Any = self.cluster_environment
        shared = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(self.num_processes),
        }
        os.environ.update(shared)
        script = Path(__file__).with_name("worker.py")
        for rank in range(1, self.num_processes):
            own = {**os.environ, "LOCAL_RANK": str(rank), _PARENT: str(os.getpid())}
            words = [sys.executable, str(script), str(self.folder), *self.plugins]
            self.procs.append(subprocess.Popen(words, env=own))

    def _watch(self) -> None:
        while not self.left.wait(_LOOKED_EVERY):
            gone = self.first_gone()
            if gone is None or self.left.wait(_GRACE_SECONDS):
                continue
            self.lost(gone)
            self._kill()
            os._exit(2)

    def first_gone(self) -> ProcessFailed | None:
        """The failure of the first worker that has ended with an error; None if there is none."""
        for rank, process in enumerate(self.procs, start=1):
            code = process.poll()
            if not code:
                continue
            if (noted := noted_failure(self.folder)) is not None:
                return noted
            if code < 0:
                name = signal.Signals(-code).name
                return ProcessFailed(rank, f"ended by {name}, as the system does where memory runs out")
            return ProcessFailed(rank, f"ended with exit code {code}")
        return None

    def end(self, *, finished: bool) -> None:
        """Waits for the workers to end for a limited time, then kills the remaining ones."""
        self.left.set()
        until = time.monotonic() + _END_SECONDS[finished]
        while any(process.poll() is None for process in self.procs) and time.monotonic() < until:
            time.sleep(0.05)
        self._kill()

    def _kill(self) -> None:
        for process in self.procs:
            if process.poll() is None:
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)


def use_workers(
    trainer: Trainer, folder: Path, plugins: Sequence[str], lost: Callable[[ProcessFailed], None]
) -> Workers | None:
    """Replaces Lightning's launcher by `Workers`; None if Lightning would start no processes."""
    strategy: Any = trainer.strategy
    if not isinstance(strategy.launcher, _SubprocessScriptLauncher):
        return None
    strategy._launcher = Workers(trainer, folder=folder, plugins=plugins, lost=lost)
    return strategy._launcher


# --- notes of failures -----------------------------------------------------------------------------------


def note_failure(folder: Path, rank: int, error: BaseException) -> None:
    """Writes the failure of a worker to the run folder, where process 0 finds it."""
    note = {
        "rank": rank,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
        "consequence": is_lost_peer(error),
    }
    with suppress(OSError):
        write_json(folder / f"failure_{rank}.json", note)


def forget_failures(folder: Path) -> None:
    """Removes the notes of an earlier attempt."""
    for path in folder.glob("failure_*.json"):
        path.unlink(missing_ok=True)


def noted_failure(folder: Path) -> ProcessFailed | None:
    """The failure noted by another process, unless it is only the consequence of another failure."""
    for path in sorted(folder.glob("failure_*.json")):
        with suppress(OSError, ValueError, json.JSONDecodeError):
            note = read_json(path)
            if not note["consequence"]:
                return ProcessFailed(int(note["rank"]), str(note["error"]), str(note["traceback"]))
    return None


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only reports that another process is gone."""
    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def cause_of(error: BaseException, folder: Path, workers: Workers | None) -> BaseException:
    """The failure of another process if `error` is only its consequence, otherwise `error` itself."""
    if not is_lost_peer(error):
        return error
    until = time.monotonic() + _NOTE_SECONDS
    while time.monotonic() < until:
        found = noted_failure(folder) or (workers.first_gone() if workers is not None else None)
        if found is not None:
            return found
        time.sleep(0.1)
    return error


def end_with_first_process() -> None:
    """Asks the kernel to kill this process when process 0 ends in any way; only on Linux."""
    if sys.platform == "linux" and (parent := os.environ.get(_PARENT)):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            os._exit(1)
