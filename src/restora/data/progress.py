"""Progress of long work on files, drawn by rich: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Advance = Callable[[int], None]
_LINE_SECONDS = 10.0


@contextmanager
def progress(label: str, total: int | None, *, done: int = 0, in_bytes: bool = False) -> Iterator[Advance]:
    """Yields a function to call with the amount of work done, in pieces or in bytes.

    `total` null is an amount that is not known.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console, label, total, done, in_bytes=in_bytes)
        return
    numbers: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn())
    if not in_bytes:
        numbers = (MofNCompleteColumn(),)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *numbers,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True, transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda amount: bar.advance(task, amount)


class Lines:
    """A line every ten seconds, for log files; shorter work prints nothing."""

    def __init__(
        self, console: Console, label: str, total: int | None, done: int = 0, *, in_bytes: bool = False
    ) -> None:
        self.console, self.label, self.total, self.done = console, label, total, done
        self.unit, self.name = (1e6, " MB") if in_bytes else (1.0, "")
        self.drawn_at = time.monotonic()

    def __call__(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.drawn_at >= _LINE_SECONDS:
            self.drawn_at = now
            whole = "" if self.total is None else f" of {self.total / self.unit:.0f}"
            state = f"{self.done / self.unit:.0f}{whole}{self.name}"
            self.console.print(f"{self.label} · {state}", markup=False, highlight=False, soft_wrap=True)
