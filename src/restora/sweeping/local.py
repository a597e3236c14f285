"""Jobs on this machine: so many at a time, each in a process of its own with its share of the cores and GPUs.

A job that fails or is killed is recorded as failed and the others go on. A job that another process still
trains is waited for. SIGTERM, Ctrl-C, SIGHUP and the file `.stop` in the sweep folder stop all jobs in an
orderly way; a second signal kills them.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from restora.files import json_text
from restora.run_state import is_locked
from restora.sweeping import ending
from restora.sweeping.plan import STOP, Job, Plan

_POLL_SECONDS = 0.2
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SERVERS = 5
"""How often a server that was killed is started again."""


class Source(Protocol):
    """Where jobs come from, and who wants to know how they ended."""

    def next(self) -> Job | None:
        """The next job; None where there is none, or none yet."""

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        """A job is finished, failed, stopped or pruned."""

    def verdict(self, job: Job) -> str | None:
        """Why a running job is not worth its end; None where it is."""


class Teller(Protocol):
    """Who shows what happens."""

    def started(self, job: Job) -> None: ...

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None: ...

    def poll(self, running: list[Job]) -> None: ...

    def say(self, line: str) -> None: ...


@dataclass
class Running:
    """A job that a process trains."""

    job: Job
    slot: int
    pid: int | None = None
    pruned: str | None = None


@dataclass(frozen=True)
class Slots:
    """How many jobs at a time; threads for each (None: torch's own choice), and the GPUs of each."""

    count: int = 1
    threads: int | None = None
    devices: tuple[tuple[str, ...], ...] = ()

    def environment(self, slot: int) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices[slot])} if self.devices else {}


def cores() -> int:
    """The cores that this process may use, by OMP_NUM_THREADS where that is fewer."""
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
class Local:
    """The executor of one sweep. `retry_failed`: jobs that failed earlier are tried again."""

    plan: Plan
    slots: Slots
    teller: Teller
    retries: int = 0
    retry_failed: bool = False
    running: dict[str, Running] = field(default_factory=dict)
    waiting: list[Job] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    asked: int | None = None
    bad: int = 0

    def run(self, source: Source) -> int:
        """Runs what the source gives until it gives no more: 0, 1 where a job failed, 128 and a signal."""
        (self.plan.folder / STOP).unlink(missing_ok=True)
        with self._listening():
            servers = 0
            while self._anything(source) and self._server(source):
                servers += 1
                if servers >= _SERVERS:
                    raise RuntimeError(f"the process that starts jobs was killed {servers} times")
                self.teller.say("the process that starts jobs was killed: another one is started")
        (self.plan.folder / STOP).unlink(missing_ok=True)
        return 128 + self.asked if self.asked is not None else int(self.bad > 0)

    def _anything(self, source: Source) -> bool:
        """Whether anything is left to train, which then waits; what is done already is said."""
        while not self.waiting and self.asked is None and (job := source.next()) is not None:
            if not self._is_done(job, source):
                self.waiting.append(job)
        return bool(self.waiting) and self.asked is None

    def _is_done(self, job: Job, source: Source) -> bool:
        """Whether nothing is left of a job, which is then closed."""
        state, record = ending.status(self.plan.path(job))
        if state in ("finished", "pruned") or (state == "failed" and not self._is_tried_again(job, record)):
            self._close(job, state, record, source)
            return True
        return False

    def _is_tried_again(self, job: Job, record: dict[str, Any]) -> bool:
        return self.attempts.get(job.name, 0) > 0 or self.retry_failed or ending.was_killed(record)

    def _server(self, source: Source) -> bool:
        """Works with one server; whether it was killed."""
        command = [sys.executable, "-P", "-m", "restora.sweeping.server"]
        with (
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            ) as server,
            selectors.DefaultSelector() as selector,
        ):
            assert server.stdin is not None
            assert server.stdout is not None
            os.set_blocking(server.stdout.fileno(), False)
            selector.register(server.stdout, selectors.EVENT_READ)
            ready, received = False, b""
            while True:
                if ready:
                    self._fill(source, server)
                if not self.running and not self.waiting and ready:
                    break
                self._stop_if_asked()
                for _ in selector.select(_POLL_SECONDS):
                    part = server.stdout.read()
                    if part == b"":
                        return self._lost()
                    received += part or b""
                    while b"\n" in received:
                        line, _, received = received.partition(b"\n")
                        ready |= self._heard(json.loads(line), source)
                self._look(source)
            server.stdin.close()
        return False

    def _fill(self, source: Source, server: "subprocess.Popen[bytes]") -> None:
        """Starts jobs while there are slots, and jobs that nobody trains."""
        while self.asked is None and len(self.running) < self.slots.count:
            job = next((job for job in self.waiting if not is_locked(self.plan.path(job))), None)
            if job is not None:
                self.waiting.remove(job)
            elif (job := source.next()) is None:
                self._say_waiting()
                return
            if is_locked(self.plan.path(job)):  # by a process whose sweep was killed: it ends soon
                self.waiting.append(job)
                self._say_waiting()
                continue
            self._start(job, source, server)

    def _say_waiting(self) -> None:
        for job in self.waiting:
            if job.name not in self.told:
                self.told.add(job.name)
                self.teller.say(f"{self.plan.path(job)} is still being trained in: it is waited for")

    def _start(self, job: Job, source: Source, server: "subprocess.Popen[bytes]") -> None:
        if self._is_done(job, source):
            return
        folder = self.plan.path(job)
        again = self._is_tried_again(job, ending.read_record(folder))
        slot = min(set(range(self.slots.count)) - {running.slot for running in self.running.values()})
        self.running[str(folder)] = Running(job, slot)
        request = {
            "start": str(folder),
            "jobs": len(self.plan.jobs),
            "threads": self.slots.threads,
            "retry": again,
            "environment": {**self.plan.environment, **self.slots.environment(slot)},
            "cwd": str(folder) if self.plan.chdir else self.plan.cwd,
            "plugins": self.plan.plugins,
        }
        self.teller.started(job)
        assert server.stdin is not None
        with suppress(BrokenPipeError):
            server.stdin.write(json_text(request, indent=None).encode() + b"\n")
            server.stdin.flush()

    def _heard(self, message: dict[str, Any], source: Source) -> bool:
        """Takes an answer of the server; whether it says that it is ready."""
        if "started" in message:
            running = self.running[message["started"]]
            running.pid = int(message["pid"])
            if self.asked is not None:  # in between
                _signal(running.pid, signal.SIGTERM)
        elif "ended" in message:
            self._ended(message["ended"], int(message["code"]), source)
        return "ready" in message

    def _ended(self, key: str, code: int, source: Source) -> None:
        running = self.running.pop(key)
        job, folder = running.job, self.plan.path(running.job)
        if code < 0 and self.asked is None and running.pruned is None:
            ending.failed(folder, ending.by_signal(-code), killed=True)
        elif code > 0 and code < 128:
            ending.failed(folder, f"its process ended with {code} before it could say why")
        if running.pruned is not None and ending.status(folder)[0] != "finished":
            ending.pruned(folder, running.pruned)
        state, record = ending.status(folder)
        attempts = self.attempts[job.name] = self.attempts.get(job.name, 0) + 1
        if state == "failed" and attempts <= self.retries and self.asked is None:
            why = record.get("error")
            self.teller.say(f"{job.name} failed ({why}): tried again, {attempts} of {self.retries}")
            self.waiting.append(job)
            return
        self._close(job, state, record, source)

    def _close(self, job: Job, state: str, record: dict[str, Any], source: Source) -> None:
        self.bad += state not in ("finished", "pruned")
        self.teller.ended(job, state, record)
        source.ended(job, state, record)

    def _look(self, source: Source) -> None:
        """Shows how far the jobs are, and stops those that are not worth their end."""
        self.teller.poll([running.job for running in self.running.values()])
        for running in self.running.values():
            if running.pid is None or running.pruned is not None or self.asked is not None:
                continue
            if (why := source.verdict(running.job)) is not None:
                running.pruned = why
                _signal(running.pid, signal.SIGTERM)

    def _lost(self) -> bool:
        """The server is gone, and with it its jobs, which are asked to stop by the system: all go on."""
        self.waiting += [running.job for running in self.running.values()]
        self.running.clear()
        return self.asked is None

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
        if self.asked is not None:
            self._each(lambda pid: os.killpg(pid, signal.SIGKILL))
            return
        self.asked = signum
        self.waiting.clear()
        self._each(lambda pid: os.kill(pid, signal.SIGTERM))

    def _stop_if_asked(self) -> None:
        if self.asked is None and (self.plan.folder / STOP).exists():
            self.teller.say("asked to stop")
            self._ask(signal.SIGTERM)

    def _each(self, do: Callable[[int], None]) -> None:
        for running in list(self.running.values()):
            if running.pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    do(running.pid)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
