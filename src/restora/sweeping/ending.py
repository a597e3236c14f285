"""Records how a job ended if its own process could not."""

import errno
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restora.files import write_json
from restora.run_state import PRUNED, read_record, status_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HINTS = {signal.SIGKILL: " (as the system does where memory runs out)"}


def failed(folder: Path, reason: str, *, killed: bool = False) -> None:
    """Records that the job failed and why, unless its own process has recorded its end."""
    record = read_record(folder)
    if not record or record.get("status") not in ("queued", "running"):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record.update(status="failed", error=reason, finished=now, killed=killed)
    write_json(folder / "run.json", record)


def pruned(folder: Path, reason: str) -> None:
    """Records that a stopped job will not be resumed, and why."""
    record = read_record(folder)
    record.update(status="pruned", error=reason)
    write_json(folder / "run.json", record)
    (folder / PRUNED).unlink(missing_ok=True)


def by_signal(number: int) -> str:
    """A phrase for the end of a job by a signal."""
    name = signal.Signals(number).name
    return f"killed by {name}{_HINTS.get(signal.Signals(number), '')}"


def was_killed(record: dict[str, Any]) -> bool:
    """Whether a failed job was ended by a signal or a full disk, so that a retry may succeed."""
    killed = bool(record.get("killed")) or "killed by signal" in str(record.get("error"))
    return killed or disk_was_full(record)


def disk_was_full(record: dict[str, Any]) -> bool:
    """Whether a job failed because there was no space for its files, as the next one would."""
    error = str(record.get("error"))
    return error.startswith("DiskFull:") or any(f"[Errno {number}]" in error for number in _FULL)


def status(folder: Path) -> tuple[str, dict[str, Any]]:
    """The status of the job, and its record."""
    record = read_record(folder)
    return (status_of(record, folder) if record else "queued"), record
