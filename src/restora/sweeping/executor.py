"""The common part of all executors: starting, closing, retrying and stopping jobs.

A job that fails or is killed is recorded as failed and the others go on. If another process still trains in a
job's folder, the executor waits for it. SIGTERM, Ctrl-C, SIGHUP and the file `.stop` in the sweep folder stop
all jobs after they have saved; a second signal kills them. After a job that found the disk full no further
job is started: each would fail, and a search would take that for a result.
"""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from restora.files import write_whole
from restora.run_state import PRUNED, is_locked, read_record
from restora.sweeping import ending
from restora.sweeping.plan import STOP, Job, Plan

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Source(Protocol):
    """Supplies the jobs, and is notified of their ends."""

    def next(self) -> Job | None:
        """The next job; None if there is none, or none yet."""

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        """Called when a job is finished, failed, stopped or pruned."""

    def verdict(self, job: Job) -> str | None:
        """The reason to prune a running job; None to continue it."""


class Teller(Protocol):
    """Shows the events of a sweep."""

    def started(self, job: Job) -> None: ...

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None: ...

    def poll(self, running: list[Job]) -> None: ...

    def say(self, line: str) -> None: ...


@dataclass
class Running:
    """A started job; `handle` is its executor's handle to end it, None until known."""

    job: Job
    slot: int
    handle: Any = None
    pruned: str | None = None


@dataclass(frozen=True)
class Slots:
    """The number of jobs at a time, the threads of each (None: torch's own choice), and the GPUs of each."""

    count: int = 1
    threads: int | None = None
    devices: tuple[tuple[str, ...], ...] = ()

    def environment(self, slot: int) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices[slot])} if self.devices else {}


def cores() -> int:
    """The number of cores that this process may use, or OMP_NUM_THREADS if that is smaller."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(found, int(said)) if said.isdigit() and int(said) else found


def slots_for(count: int | None, *, gpus: list[str], devices: int) -> Slots:
    """`count` jobs at a time, or as many as fit the GPUs, each on `devices` of them; one without GPUs."""
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    count = count or max(len(groups), 1)
    if count == 1:
        return Slots(devices=tuple(groups[:1]))
    shared = tuple(groups[slot % len(groups)] for slot in range(count)) if groups else ()
    return Slots(count, max(1, cores() // count), shared)


@dataclass
class Executor(ABC):
    """Runs the jobs of one sweep. `retry_failed`: jobs that failed earlier are tried again."""

    plan: Plan
    slots: Slots
    teller: Teller
    retries: int = 0
    retry_failed: bool = False
    running: dict[str, Running] = field(default_factory=dict)
    waiting: list[Job] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    asked: int | None = None
    bad: int = 0
    full: bool = False
    """Whether a job has failed because the disk was full."""

    def run(self, source: Source) -> int:
        """Runs the source's jobs until there are no more; returns 0, 1 if a job failed, or 128 + signal."""
        (self.plan.folder / STOP).unlink(missing_ok=True)
        with self._listening():
            self._work(source)
        (self.plan.folder / STOP).unlink(missing_ok=True)
        return 128 + self.asked if self.asked is not None else int(self.bad > 0)

    @abstractmethod
    def _work(self, source: Source) -> None:
        """Fills the slots, handles ended jobs and polls, until no job is left or a stop was requested."""

    @abstractmethod
    def _launch(self, running: Running, *, again: bool) -> None:
        """Starts or submits a job; `again` if it failed before."""

    @abstractmethod
    def _end(self, running: Running, number: int) -> None:
        """Asks a job to save and end (SIGTERM), or kills it with its child processes (SIGKILL)."""

    def _is_busy(self, job: Job) -> bool:
        """Whether a process of another executor still trains the job, so that it has to wait."""
        return is_locked(self.plan.path(job))

    def _anything(self, source: Source) -> bool:
        """Queues the next job that needs training, and reports those already done; False if none is left."""
        while not self.waiting and self._goes_on() and (job := source.next()) is not None:
            if not self._is_done(job, source):
                self.waiting.append(job)
        return bool(self.waiting) and self._goes_on()

    def _goes_on(self) -> bool:
        """Whether further jobs are started."""
        return self.asked is None and not self.full

    def _is_done(self, job: Job, source: Source) -> bool:
        """Whether a job needs no more training; if so, it is closed."""
        state, record = self._state(job)
        if state in ("finished", "pruned") or (state == "failed" and not self._is_tried_again(job, record)):
            self._close(job, state, record, source)
            return True
        return False

    def _state(self, job: Job) -> tuple[str, dict[str, Any]]:
        """The status of a job, and its record; without a record, for example a removed one, it has failed."""
        state, record = ending.status(self.plan.path(job))
        if record:
            return state, record
        return "failed", {"error": "run.json is missing or damaged: the command of the sweep writes it again"}

    def _is_tried_again(self, job: Job, record: dict[str, Any]) -> bool:
        again = self.attempts.get(job.name, 0) > 0 or self.retry_failed or ending.was_killed(record)
        return again and "config" in record

    def _fill(self, source: Source) -> None:
        """Starts jobs while there are free slots and jobs that no other process trains."""
        if self.full:
            self.waiting.clear()
        while self._goes_on() and len(self.running) < self.slots.count:
            job = next((job for job in self.waiting if not self._is_busy(job)), None)
            if job is not None:
                self.waiting.remove(job)
            elif (job := source.next()) is None:
                self._say_waiting()
                return
            if self._is_busy(job):  # by a process of a killed sweep, which ends soon
                self.waiting.append(job)
                self._say_waiting()
                continue
            self._start(job, source)

    def _say_waiting(self) -> None:
        for job in self.waiting:
            if job.name not in self.named:
                self.named.add(job.name)
                self.teller.say(f"{self.plan.path(job)} is still in use by another training: waiting for it")

    def _start(self, job: Job, source: Source) -> None:
        if self._is_done(job, source):
            return
        folder = self.plan.path(job)
        again = self._is_tried_again(job, read_record(folder))
        slot = min(set(range(self.slots.count)) - {running.slot for running in self.running.values()})
        self.running[str(folder)] = Running(job, slot)
        self.teller.started(job)
        self._launch(self.running[str(folder)], again=again)

    def _ended(self, key: str, code: int, source: Source) -> None:
        running = self.running.pop(key)
        job, folder = running.job, self.plan.path(running.job)
        if code < 0 and self.asked is None and running.pruned is None:
            ending.failed(folder, ending.by_signal(-code), killed=True)
        elif code > 0 and code < 128:
            ending.failed(folder, f"its process ended with {code} before it could say why")
        if running.pruned is not None and ending.status(folder)[0] != "finished":
            ending.pruned(folder, running.pruned)
        state, record = self._state(job)
        if state == "failed" and ending.disk_was_full(record):
            self._disk_is_full()
        attempts = self.attempts[job.name] = self.attempts.get(job.name, 0) + 1
        if state == "failed" and attempts <= self.retries and self._goes_on():
            why = record.get("error")
            self.teller.say(f"{job.name} failed ({why}): retry {attempts} of {self.retries}")
            self.waiting.append(job)
            return
        self._close(job, state, record, source)

    def _close(self, job: Job, state: str, record: dict[str, Any], source: Source) -> None:
        self.bad += state not in ("finished", "pruned")
        self.teller.ended(job, state, record)
        if not (state == "failed" and ending.disk_was_full(record)):  # which is no result
            source.ended(job, state, record)

    def _disk_is_full(self) -> None:
        if not self.full:
            self.teller.say("the disk is full: no further job is started. Make room, then repeat the command")
        self.full = True

    def _look(self, source: Source) -> None:
        """Shows the jobs' progress, and stops those that the source prunes."""
        self.teller.poll([running.job for running in self.running.values()])
        for running in self.running.values():
            if running.handle is None or running.pruned is not None or self.asked is not None:
                continue
            if (why := source.verdict(running.job)) is not None:
                running.pruned = why
                write_whole(self.plan.path(running.job) / PRUNED, why)  # for the last line of its log
                self._end(running, signal.SIGTERM)

    # --- stopping ---

    @contextmanager
    def _listening(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            if before[number] != signal.SIG_IGN:
                signal.signal(number, lambda signum, _: self._ask(signum))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, signum: int) -> None:
        number = signal.SIGTERM if self.asked is None else signal.SIGKILL
        if self.asked is None:
            self.asked = signum
            self.waiting.clear()
        for running in list(self.running.values()):
            self._end(running, number)

    def _stop_if_asked(self) -> None:
        if self.asked is None and (self.plan.folder / STOP).exists():
            self.teller.say("asked to stop")
            self._ask(signal.SIGTERM)
