"""Shows a sweep in a terminal: a table of its jobs, and a line for each event while it runs."""

import re
import sys
import textwrap
import time
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from restora.sweeping.job import LOG
from restora.sweeping.plan import Job, Plan
from restora.sweeping.status import JobStatus, counts, statuses
from restora.words import figure

_STYLES = {"failed": "red", "dead": "red", "running": "cyan", "finished": "green"}
_REDRAW_SECONDS = 1.0
_LONGEST = 400
"""Most characters of a reason; the full text is in the job's log."""


def clock(seconds: float) -> str:
    """4:05, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def short(word: str) -> str:
    """The short form of an override: `loss@family.loss=l1` becomes `loss=l1`."""
    return re.sub(r"@[\w.:]+(?==)", "", word, count=1)


def table(plan: Plan, *, only: set[str] | None = None) -> Group:
    """The jobs with their states and figures, and the sum below; with `only`, just jobs in these states."""
    jobs = statuses(plan)
    shown = [job for job in jobs if only is None or job.state in only]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(shown))
    made.add_column("job", overflow="fold")
    if described := any(job.words for job in shown):
        made.add_column("settings", overflow="fold")
    made.add_column("state", no_wrap=True)
    made.add_column("best", no_wrap=True, justify="right")
    made.add_column("spent", no_wrap=True, justify="right")
    made.add_column("left", no_wrap=True, justify="right")
    for job in shown:
        state = Text(job.state, style=_STYLES.get(job.state, ""))
        if job.state == "running" and job.share:
            state = Text(f"running {job.share:.0%}", style="cyan")
        left = "" if job.left is None or job.state not in ("running", "queued") else clock(job.left)
        name = (job.job.name, job.words) if described else (job.job.name,)
        made.add_row(*name, state, job.figure, clock(job.seconds) if job.seconds else "", left)
    why = [
        Text(f"{job.job.name}: {said}", style="red" if job.state == "failed" else "dim")
        for job in shown
        if (said := textwrap.shorten(job.reason, _LONGEST, placeholder=" …"))
    ]
    return Group(*([made] if shown else []), *why, Text(summary(jobs)))


def summary(jobs: list[JobStatus]) -> str:
    """3 finished, 2 queued · 12:05 spent · about 8:00 to come."""
    parts = [states(jobs)]
    parts.append(f"{clock(sum(job.seconds for job in jobs))} spent")
    known = [job.left for job in jobs if job.left is not None and job.state != "failed"]
    if any(known):
        parts.append(f"about {clock(sum(known))} of computing to come")
    return " · ".join(parts)


def states(jobs: list[JobStatus]) -> str:
    """3 finished, 2 queued."""
    return ", ".join(f"{n} {state}" for state, n in counts(jobs).items()) or "no jobs yet"


def show(plan: Plan) -> None:
    """Prints the table once."""
    console = Console(highlight=False)
    console.print(str(plan.folder), markup=False, soft_wrap=True)
    console.print(table(plan))


def show_best(rows: list[tuple[str, dict[str, float], dict[str, Any]]]) -> None:
    """Prints the result of a search: the best job, or the Pareto-optimal jobs of several objectives."""
    if not rows:
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("best" if len(rows) == 1 else "best trade-offs", overflow="fold")
    for name in rows[0][1]:
        made.add_column(name, no_wrap=True, justify="right")
    made.add_column("point", overflow="fold")
    for folder, values, point in rows:
        figures = (_objective(name, value) for name, value in values.items())
        made.add_row(folder, *figures, " ".join(f"{key}={_of_point(value)}" for key, value in point.items()))
    Console(highlight=False).print(made)


def _of_point(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _objective(name: str, value: float) -> str:
    counted = name in ("macs_256", "parameters")
    return f"{value:,.0f}" if counted else figure(name.removeprefix("val/"), value)


@dataclass
class Lines:
    """Prints events to standard error; on a terminal with a table of the running jobs below.

    Elsewhere, with `copy_log` (one job at a time), it also prints the job's log.
    """

    plan: Plan
    jobs: int
    copy_log: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    live: Live | None = None
    done: int = 0
    read: dict[str, int] = field(default_factory=dict)
    next_draw: float = 0.0

    def __post_init__(self) -> None:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.copy_log = False
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def started(self, job: Job) -> None:
        log = self.plan.path(job) / LOG
        self.read[job.name] = log.stat().st_size if log.exists() else 0
        same = set(self.plan.overrides)
        if self.plan.settings["search"] is None:
            same |= set.intersection(*(set(other.overrides) for other in self.plan.jobs))
        words = (short(word) for word in job.overrides if word not in same)
        self.say(f"{job.name}: {' '.join(words)}".rstrip(": "))

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        self._copy(job)
        self.done += 1
        folder = self.plan.path(job)
        what = f"{self.done} of {self.jobs} · {job.name} {state}"
        if job.name not in self.read and state in ("finished", "pruned"):
            self.say(f"{what} already: skipped")
        elif state == "failed":
            already = "" if job.name in self.read else " earlier"
            line = f"{what}{already}: {record.get('error')}\n  see {folder / LOG}"
            self.console.print(Text(line, style="red"), soft_wrap=True)
        else:
            self.say(what if state != "pruned" else f"{what}: {record.get('error')}")

    def poll(self, running: list[Job]) -> None:
        for job in running:
            self._copy(job)
        began = time.monotonic()
        if self.live is not None and began > self.next_draw:
            self.live.update(table(self.plan, only={"running"}), refresh=True)
            taken = time.monotonic() - began  # every record is read: a tenth of a second for 1000 jobs
            self.next_draw = began + max(_REDRAW_SECONDS, 20 * taken)

    def _copy(self, job: Job) -> None:
        log = self.plan.path(job) / LOG
        if not self.copy_log or job.name not in self.read or not log.exists():
            return
        with log.open("rb") as file:
            file.seek(self.read[job.name])
            new = file.read()
        self.read[job.name] += len(new)
        sys.stderr.write(new.decode(errors="replace"))
        sys.stderr.flush()
