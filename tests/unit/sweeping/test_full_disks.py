"""A disk that is full ends a sweep: its other jobs stay queued, and the same command retries what failed."""

from pathlib import Path
from typing import Any

import pytest

from restora.files import write_json
from restora.run_state import read_record
from restora.sweeping import ending
from restora.sweeping.executor import Executor, Running, Slots
from restora.sweeping.plan import Job, Plan

FULL = ("DiskFull: no space for x", "OSError: [Errno 28] No space left on device: 'x'")


class Failing(Executor):
    """Each job fails with an error at once."""

    error = ""

    def _work(self, source: Any) -> None:
        while True:
            self._fill(source)
            if not self.running:
                break
            key, running = next(iter(self.running.items()))
            ending.failed(self.plan.path(running.job), self.error)
            self._ended(key, 1, source)

    def _launch(self, running: Running, *, again: bool) -> None: ...

    def _end(self, running: Running, number: int) -> None: ...


class Told:
    """Takes the place of a source and of a teller."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs, self.results, self.lines = list(jobs), list[str](), list[str]()

    def next(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        self.results.append(job.name)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def started(self, job: Job) -> None: ...


@pytest.mark.parametrize(("error", "tried"), [*((error, 1) for error in FULL), ("ValueError: x", 3)])
def test_no_job_is_started_after_the_disk_was_full(error: str, tried: int, tmp_path: Path) -> None:
    jobs = [Job(number, str(number), str(number), []) for number in range(3)]
    plan = Plan(folder=tmp_path, command="", overrides=[], cwd="/", settings={}, jobs=jobs)
    for job in jobs:
        write_json(plan.path(job) / "run.json", {"status": "queued", "config": {}})
    source, teller = Told(jobs), Told([])
    executor: Any = Failing(plan, Slots(), teller, retries=1)  # type: ignore[arg-type]
    executor.error = error
    assert executor.run(source) == 1
    states = [ending.status(plan.path(job))[0] for job in jobs]
    assert states == ["failed"] * tried + ["queued"] * (3 - tried)
    assert len(source.results) == (3 if tried == 3 else 0)  # a full disk is no result of a search
    assert any("the disk is full" in line for line in teller.lines) == (tried == 1)
    again: Any = Failing(plan, Slots(), teller)  # type: ignore[arg-type]
    assert again._is_tried_again(jobs[0], read_record(plan.path(jobs[0]))) == (tried == 1)
