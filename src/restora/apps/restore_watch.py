"""The photos that appear in a folder, handed out once each file is whole.

A file counts as whole when neither its size nor its time has changed between two looks. One that could not be
restored is tried again when it changes.

Note: what OUTPUT has already is skipped, so that a watch that is started again goes on where the last one
ended; with `overwrite` a photo that changes is restored again.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from restora.apps.restore_plan import Failure, Naming, Plan, plan

SECONDS = 1.0
"""Between two looks."""
Stamp = tuple[int, int]


def appearing(
    source: Path, output: Path, naming: Naming, *, overwrite: bool, seconds: float = SECONDS
) -> Iterator[Plan]:
    """Plans for new photos once their files are whole, without end; a photo left out is named once.

    Raises ValueError where `source` is no folder.
    """
    if not source.is_dir():
        raise ValueError(f"--watch looks after a folder, and {source} is none")
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
    """Size and time of a file; None for one that is gone or empty."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
