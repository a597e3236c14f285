"""Watches a folder for new photos, and yields each once its file is complete.

A file counts as complete if neither its size nor its time has changed between two checks. A photo that could
not be restored, or a video of which only a part was, is tried again when its file changes.

Note: photos whose output exists are skipped, so that a restarted watch continues where the last one ended;
with `overwrite` a photo is restored again when its file changes.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from restora.apps.restoring.plan import Failure, Job, Naming, Plan, plan

SECONDS = 1.0
"""Time between two checks."""
Stamp = tuple[int, int]


def appearing(
    source: Path, output: Path, naming: Naming, *, overwrite: bool, seconds: float = SECONDS
) -> Iterator[Plan]:
    """Plans for new photos once their files are complete, without end; each failure is reported once.

    Who restores them adds to a plan's failures those that were not restored, or not completely. Raises
    ValueError at once if `source` is no folder, or if it is also the folder of the outputs.
    """
    if not source.is_dir():
        raise ValueError(f"--watch needs a folder as INPUT, and {source} is not one")
    if output.is_dir() and output.samefile(source):
        raise ValueError(
            f"{output} is the folder that is watched, and the results would be restored again: name another "
            "OUTPUT"
        )
    plan(source, output, naming, empty=True)
    return _plans(source, output, naming, overwrite=overwrite, seconds=seconds)


def _plans(source: Path, output: Path, naming: Naming, *, overwrite: bool, seconds: float) -> Iterator[Plan]:
    before: dict[Path, Stamp | None] = {}
    handled: dict[Path, Stamp | None] = {}
    made: dict[Path, Path] = {}
    failed: set[Path] = set()
    named: set[Failure] = set()
    while True:
        try:
            planned = plan(source, output, naming, empty=True)
        except ValueError as error:  # such as a drive that is gone for a while
            planned = Plan(failures=[Failure(str(source), str(error))])
        now = {job.source: _stamp(job.source) for job in planned.jobs}
        ready: list[Job] = []
        for job in planned.jobs:
            complete = now[job.source] is not None and before.get(job.source) == now[job.source]
            if not complete or handled.get(job.source) == now[job.source]:
                continue
            if (taken := made.get(job.target)) not in (None, job.source):
                reason = f"would become {job.target}, which was made of {taken}: rename one"
                planned.failures.append(Failure(job.name, reason))
            elif overwrite or job.source in failed or not job.target.exists():
                ready.append(job)
        fresh = [failure for failure in planned.failures if failure not in named]
        named.update(fresh)
        before = now
        if ready or fresh:
            handled.update({job.source: now[job.source] for job in ready})
            made.update({job.target: job.source for job in ready})
            found = Plan(jobs=ready, failures=fresh)
            yield found
            names = {failure.name for failure in found.failures}
            failed.difference_update(job.source for job in ready)
            failed.update(job.source for job in ready if job.name in names)
        time.sleep(seconds)


def _stamp(path: Path) -> Stamp | None:
    """Size and time of a file; None if it is gone or empty."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
