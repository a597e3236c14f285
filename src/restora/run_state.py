"""Ownership and status of run folders: claims, locks, heartbeats.

A folder belongs to the command that created it; two commands that want the same name get two folders. While a
process trains in a folder it holds the lock `.lock` there, which the system releases however the process
ends, and `run.json` names the process: host, boot of the machine, process id and start, and last heartbeat.
So a run whose record says "running" but whose process is gone is shown as dead.

Note: the lock is POSIX's, not flock's, because it must not be inherited: the workers that cut crops outlive a
killed trainer by seconds.
"""

import errno
import fcntl
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from restora.files import read_json

LOCK = ".lock"
PRUNED = ".pruned"
"""A file in the folder of a run that is stopped and will not be resumed; it says why."""
_SILENT_SECONDS = 900.0
"""A process of another machine counts as dead after this long without a heartbeat; it writes one every 10 s,
except while it packs photos or searches for near-duplicates."""
_held: dict[Path, int] = {}
_holding = threading.Lock()


class Occupied(ValueError):
    """A run folder that this command must not touch; the message names the reason and the fix."""


class Gone(ValueError):
    """A run folder that was moved or deleted while a process trained in it."""


def this_process() -> dict[str, Any]:
    """The entry of run.json on the training process, with a heartbeat of now."""
    return {
        "host": platform.node(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "heartbeat": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"slurm_job": slurm} if (slurm := os.environ.get("SLURM_JOB_ID")) else {}),
    }


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json` of a run; empty if it cannot be read."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def status_of(record: Mapping[str, Any], folder: Path) -> str:
    """The status of a run record; `dead` if it says `running` and the process is gone."""
    status = str(record.get("status") or "unknown")
    if status != "running":
        return status
    process = record.get("process")
    if not isinstance(process, Mapping):  # an older version's record
        return status
    if process.get("host") == platform.node() and process.get("boot") == _boot():
        pid = process.get("pid")
        alive = isinstance(pid, int) and _started(pid) == process.get("started") is not None
        return status if alive or is_locked(folder) else "dead"
    if process.get("host") == platform.node():  # the machine has rebooted since
        return "dead"
    silent = _seconds_since(process.get("heartbeat")) > _SILENT_SECONDS  # or the clocks differ
    here = folder.resolve() in _held  # this process is about to find out
    return "dead" if silent and (here or not is_locked(folder)) else status


def claim(folder: Path) -> Path:
    """Creates `folder`, or the first free one of `folder_2`, `folder_3`, …, and returns it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}_{number}")


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Holds the run folder's lock. Raises `Occupied`, with the holder's name, if another process has it."""
    folder = folder.resolve()
    with _holding:
        mine = folder in _held
        if not mine:
            _held[folder] = _locked(folder)
    try:
        yield
    finally:
        if not mine:
            with _holding:
                handle = _held.pop(folder)
                if _is_at(handle, folder / LOCK):  # not another run's, where this folder was moved away
                    (folder / LOCK).unlink(missing_ok=True)
                os.close(handle)


def check_place(folder: Path) -> None:
    """Raises `Gone` if the folder that this process trains in no longer exists at its path.

    Anything written after that would make half a run at the old path.
    """
    handle = _held.get(folder.resolve())
    if handle is not None and not _is_at(handle, folder / LOCK):
        raise Gone(
            f"{folder} was moved or deleted during training: resume with resume=FOLDER at its new place"
        )


def is_locked(folder: Path) -> bool:
    """Whether a process trains in the folder."""
    folder = folder.resolve()
    with _holding:
        if folder in _held:  # closing another handle of the file would release the lock
            return True
        try:
            handle = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _lock(handle)
        finally:
            os.close(handle)


def _locked(folder: Path) -> int:
    """Locks the lock file and returns its handle."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if not _lock(handle):
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            raise Occupied(
                f"{folder} is being trained in by {holder or 'another process'}: wait for it, stop it, or "
                "train in another folder"
            )
        if _is_at(handle, folder / LOCK):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
            return handle
        os.close(handle)  # its holder ended and removed the file meanwhile


def _lock(handle: int) -> bool:
    """Locks a file; False if another process has. A file system without locks, as some clusters have, locks
    nothing: there the heartbeat alone says that a run is alive."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


@cache
def _boot() -> str | None:
    """An identifier that changes with each boot of the machine."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else None


def _started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since boot; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _seconds_since(time: Any) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()
    except (ValueError, TypeError):
        return float("inf")
