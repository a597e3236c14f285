"""What the benchmarks share: times of several callables taken in turns, and tables.

Every round calls each once, so that a busy machine disturbs all alike; compare by the ratios within a round.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one callable, a number per round: on the clock, and of the processor in all threads."""

    wall: Sequence[float]
    processor: Sequence[float]

    @property
    def milliseconds(self) -> float:
        """Median on the clock."""
        return 1e3 * statistics.median(self.wall)

    @property
    def processor_milliseconds(self) -> float:
        return 1e3 * statistics.median(self.processor)

    @property
    def spread(self) -> str:
        """Least and most milliseconds on the clock."""
        return f"{1e3 * min(self.wall):.1f}-{1e3 * max(self.wall):.1f}"

    def times_faster_than(self, other: "Timing", *, processor: bool = False) -> float:
        """The median over rounds of the other's seconds to these."""
        own, theirs = (t.processor if processor else t.wall for t in (self, other))
        return statistics.median(b / a for a, b in zip(own, theirs, strict=True))


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device | str = "cpu",
    warm_up: int = 1,
) -> dict[str, Timing]:
    """The timing of every callable by name. First calls, which choose kernels and fill caches, are not
    counted; each call is waited for on the device.
    """
    device = torch.device(device)
    for _ in range(warm_up):
        for call in calls.values():
            call()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            _wait(device)
            started, busy = time.perf_counter(), time.process_time()
            call()
            _wait(device)
            wall[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - busy)
    return {name: Timing(wall[name], processor[name]) for name in calls}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device | str = "cpu") -> str:
    """The device in words, with the threads that torch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    threads = torch.get_num_threads()
    where = "" if device.type == "cpu" else f"{device.type} beside "
    return f"{where}{name}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is set to the right."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [headings, rule, *rows]
    return "\n".join(
        "| "
        + " | ".join(
            f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in lines
    )
