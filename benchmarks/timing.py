"""Timing that is robust on a shared machine, and the rows that `make bench` gathers.

The compared functions are called in turns, each once per round, so that a disturbance affects all of them.
Both wall-clock and processor time are measured: the latter is the time of the work itself, over all threads
of this process. For both, the median is reported, with the quartiles; a ratio is the median of the ratios
within a round.
"""

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from restora.files import write_json

Clock = Literal["wall", "processor"]
WIDTH = 100


@dataclass
class Times:
    """Seconds of every round."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def median(self, clock: Clock = "wall") -> float:
        return statistics.median(getattr(self, clock))

    def spread(self, clock: Clock = "wall") -> str:
        """The quartiles in milliseconds, `81-95`."""
        seconds = sorted(getattr(self, clock))
        if len(seconds) < 2:
            return ""
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return f"{milliseconds(low)}-{milliseconds(high)}"


@dataclass(frozen=True)
class Row:
    """One line of the table of targets. `met` is None if nothing could be measured; `measured` then has the
    reason."""

    what: str
    measured: str
    target: str = ""
    met: bool | None = None


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: str = "cpu",
    repeats: int = 1,
    warm_up: int = 1,
) -> dict[str, Times]:
    """Times each way once per round, as the mean of `repeats` calls, after `warm_up` unmeasured rounds."""
    times = {name: Times() for name in ways}
    for number in range(warm_up + rounds):
        for name, way in ways.items():
            synchronise(device)
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                way()
            synchronise(device)
            if number >= warm_up:
                times[name].wall.append((time.perf_counter() - wall) / repeats)
                times[name].processor.append((time.process_time() - processor) / repeats)
    return times


def synchronise(device: str) -> None:
    """Waits for the pending work of a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def ratio(slow: Times, fast: Times, clock: Clock = "wall") -> float:
    """How many times faster `fast` is: the median over rounds of the ratio within a round."""
    pairs = zip(getattr(slow, clock), getattr(fast, clock), strict=True)
    return statistics.median(a / b for a, b in pairs)


def ratio_interval(slow: Times, fast: Times, clock: Clock = "wall") -> tuple[float, float]:
    """The 95% interval of `ratio`, from the sorted ratios: the binomial distribution gives the probability
    that the median lies between two of them, whatever their distribution. With fewer than six rounds it is
    the full range."""
    ratios = sorted(a / b for a, b in zip(getattr(slow, clock), getattr(fast, clock), strict=True))
    count = len(ratios)
    below, outside = 0, 0.0
    while (outside := outside + math.comb(count, below) / 2**count) <= 0.025:
        below += 1
    rank = max(below, 1)
    return ratios[rank - 1], ratios[count - rank]


def ratio_of_medians(slow: Times, fast: Times, clock: Clock = "wall") -> float:
    return slow.median(clock) / fast.median(clock)


def milliseconds(seconds: float) -> str:
    """Milliseconds with about three digits: `0.482`, `48.2`, `4,820`."""
    number = 1e3 * seconds
    digits = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3
    return f"{number:,.{digits}f}"


def comparison(title: str, times: Mapping[str, Times], *, reference: str, against: str = "restora") -> None:
    """Prints a table of all ways: medians, quartiles, and how many times faster than `reference` each is."""
    rows = []
    for name, taken in times.items():
        cells = [name]
        for clock in ("wall", "processor"):
            faster = f"{ratio(times[reference], taken, clock):.2f}"
            cells += [milliseconds(taken.median(clock)), taken.spread(clock), faster]
        rows.append(cells)
    header = ["", "wall ms", "quartiles", "×", "processor ms", "quartiles", "×"]
    print_table(title, header, rows)
    ours, theirs = times.get(against), times[reference]
    if ours is not None:
        console().print(
            f"  {against} against {reference}: {ratio(theirs, ours):.2f} (median of rounds), "
            f"{ratio_of_medians(theirs, ours):.2f} (ratio of medians)"
        )


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of at most 100 columns; the first column is text, the others are figures."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right")
    for cells in rows:
        table.add_row(*cells)
    console().print(table)


def console() -> Console:
    return Console(width=WIDTH, highlight=False, soft_wrap=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rows", type=Path, help="also write the rows of the table of targets to this file")
    made.add_argument("--quick", action="store_true", help="fewer rounds: a first impression, not a figure")
    return made


def save_rows(rows: Sequence[Row], path: Path | None) -> None:
    """Writes the rows of the table of targets to a file for `make bench`."""
    if path is not None:
        write_json(path, [asdict(row) for row in rows])


def not_measured(what: Sequence[tuple[str, str]], why: str) -> list[Row]:
    """A row for each (what, target), with the reason why there is no figure."""
    return [Row(name, f"not measured: {why}", target) for name, target in what]


def machine(device: str = "cpu", threads: int | None = None) -> str:
    """The device in words, for the head of a table; `threads` are those of another process, by default this
    one's."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    threads = threads or torch.get_num_threads()
    return f"{name}, {device}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"
