"""Watches a folder for new photos, and yields each once its file is complete.

A file counts as complete if neither its size nor its time has changed between two checks. A photo that could
not be restored is tried again when its file changes.

Note: photos whose output exists are skipped, so that a restarted watch continues where the last one ended;
with `overwrite` a photo is restored again when its file changes.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from restora.apps.restore_plan import Failure, Naming, Plan, plan

SECONDS = 1.0
"""Time between two checks."""
Stamp = tuple[int, int]


def appearing(
    source: Path, output: Path, naming: Naming, *, overwrite: bool, seconds: float = SECONDS
) -> Iterator[Plan]:
    """Plans for new photos once their files are complete, without end; each failure is reported once.

    Raises ValueError at once if `source` is no folder.
    """
    if not source.is_dir():
        raise ValueError(f"--watch needs a folder as INPUT, and {source} is not one")
    return _plans(source, output, naming, overwrite=overwrite, seconds=seconds)


def _plans(source: Path, output: Path, naming: Naming, *, overwrite: bool, seconds: float) -> Iterator[Plan]:
    before: dict[Path, Stamp | None] = {}
    handled: dict[Path, Stamp | None] = {}
    named: set[Failure] = set()
    while True:
        planned = plan(source, output, naming, empty=True)
        now = {job.source: _stamp(job.source) for job in planned.jobs}
        ready = [
            job
            for job in planned.jobs
            if now[job.source] is not None
            and before.get(job.source) == now[job.source] != handled.get(job.source)
            and (overwrite or not job.target.exists())
        ]
        fresh = [failure for failure in planned.failures if failure not in named]
        named.update(fresh)
        before = now
        if ready or fresh:
            handled.update({job.source: now[job.source] for job in ready})
            yield Plan(jobs=ready, failures=fresh)
        time.sleep(seconds)


def _stamp(path: Path) -> Stamp | None:
    """Size and time of a file; None if it is gone or empty."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
