"""Runs a job of a sweep from its folder alone: `python -m restora.sweeping.job FOLDER`.

On this machine its output goes to `train.log` in the folder; the exit status shows how it ended, and
`run.json` why. On a cluster FOLDER is the sweep's, and `--job` is the number of the job: variables, folders
and plugins come from the plan, and the job opens `train.log` itself.
"""

import argparse
import atexit
import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

LOG = "train.log"
SAVED = ".saved_"
"""With a job's number, the name of a file in a SLURM sweep's folder: the job was stopped and has saved."""
_PR_SET_PDEATHSIG = 1


def main(
    folder: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    retry: bool = False,
    plugins: Sequence[str] = (),
) -> int:
    """Trains the rest of the run in the folder; returns the exit status. Raises `SystemExit` if stopped."""
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s", stream=sys.stderr
    )
    from restora.registry import use_plugins
    from restora.sweeping.ending import failed
    from restora.training.starting import start_folder

    try:
        use_plugins(plugins)
        start_folder(folder, jobs=jobs, threads=threads, retry=retry)
    except Exception as error:
        traceback.print_exc()
        failed(folder, f"{type(error).__name__}: {error}")
        return 1
    return 0


def write_to_log(folder: Path) -> None:
    """Redirects standard input from /dev/null, and all output to the job's log."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def main_of(sweep: Path, number: int, *, threads: int | None, retry: bool) -> int:
    """Runs job `number` of the sweep in a folder."""
    from restora.sweeping.plan import read_plan

    plan = read_plan(sweep.resolve())
    job = next(job for job in plan.jobs if job.number == number)
    folder = plan.path(job)
    write_to_log(folder)
    os.environ.update(plan.environment)
    os.chdir(folder if plan.chdir else plan.cwd)
    began = _saved_at(folder)
    try:
        return main(folder, jobs=plan.expected, threads=threads, retry=retry, plugins=plan.plugins)
    except SystemExit:
        if _saved_at(folder) != began:
            (plan.folder / f"{SAVED}{number}").touch()
        raise


def _saved_at(folder: Path) -> int | None:
    """When the last checkpoint was written."""
    path = folder / "checkpoints" / "last.ckpt"
    return path.stat().st_mtime_ns if path.exists() else None


def leave(work: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit status of its work, as Python would, but without unloading modules.

    Unloading takes 2.2 s in a fork of a process with torch and Lightning, because it copies their pages.
    """
    try:
        code: Any = work()
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))


def stop_with_parent(parent: int) -> None:
    """Makes the system send SIGTERM when the parent ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def share_of_slurm() -> int | None:
    """The cores that SLURM gives to a task; None outside SLURM."""
    if each := os.environ.get("SLURM_CPUS_PER_TASK"):
        return int(each)
    here = os.environ.get("SLURM_CPUS_ON_NODE")
    return None if here is None else max(1, int(here) // int(os.environ.get("SLURM_NTASKS_PER_NODE") or 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs one job of a sweep.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--job", type=int, help="FOLDER is a sweep's, and this the number of its job")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--parent", type=int, help="the process whose end ends the job")
    words = parser.parse_args()
    if words.parent:
        stop_with_parent(words.parent)
    share = words.threads or share_of_slurm()
    if words.job is not None:
        leave(lambda: main_of(words.folder, words.job, threads=share, retry=words.retry))
    leave(lambda: main(words.folder, threads=share, retry=words.retry, plugins=words.plugin))
