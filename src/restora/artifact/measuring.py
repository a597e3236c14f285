"""The cost of restoring on this machine, for each engine: seconds per megapixel, and memory.

Note: memory is the growth of the process from before a file is opened until a photo is restored; the memory
of Python and the libraries without a model is not counted. It is measured first, since later runs keep the
memory that they free (`allocator.py`), as restoring does.

Legend: B photos, C channels, K condition channels.
"""

import ctypes
import gc
import itertools
import math
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from restora.allocator import freed_memory_kept
from restora.artifact.parity import Compute
from restora.networks.base import Network

SMALL, LARGE = 256, 512
"""Sides of the photos that are restored, the larger one only if that takes no more than seconds. The fastest
engine depends on the size: a size that fits the caches for one engine does not for another."""
QUICK = 1.0
"""Seconds for the small photo up to which the large one is restored too."""
FEWEST, MOST = 5, 25
"""Rounds in which each engine takes a turn: more if their times are hard to distinguish."""
LONGEST = 6.0
"""Seconds per engine after which no further round starts."""
ALIKE = 1.03
"""A ratio of two times that counts as no difference."""
_LEVELS = {"AVX512": "AVX-512", "DEFAULT": ""}
"""torch's names of vector instructions, in words."""


def processor() -> str:
    """The name of this machine's processor and the instructions that decide its speed: AMD EPYC (AVX2).

    The name alone is not enough: virtual machines have one for several generations.
    """
    units = [_LEVELS.get(level := torch.backends.cpu.get_cpu_capability(), level)]
    units += ["bfloat16"] if torch.cpu._is_avx512_bf16_supported() else []
    units += ["AMX"] if torch.cpu._is_amx_tile_supported() else []
    known = ", ".join(filter(None, units))
    return f"{_model()} ({known})" if known else _model()


def _model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if "model name" in line:
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def test_photo(network: Network, side: int) -> tuple[Tensor, Tensor | None]:
    """(1,C,side,side) and (1,K,side,side), or None."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, network.in_channels, side, side, generator=generator)
    maps = network.condition_channels
    return x, torch.full((1, maps, side, side), 0.1) if maps else None


@torch.no_grad()
def sides_for(compute: Compute, network: Network) -> tuple[int, ...]:
    """The sides of the photos to measure on, in rising order, by how long torch takes."""
    x, condition = test_photo(network, SMALL)
    compute(x, condition)
    return (SMALL, LARGE) if _seconds(compute, x, condition) < QUICK else (SMALL,)


def nearest_side(sides: Iterable[int], pixels: int) -> int:
    """The side of the square that is the most like a photo of so many pixels, by their ratio."""
    return min(sides, key=lambda side: abs(math.log(pixels / side**2)))


@torch.no_grad()
def megabytes(opened: Callable[[], Compute], network: Network, side: int) -> float | None:
    """Peak memory of opening an engine and restoring a photo of `side` x `side` pixels.

    None if the system does not report it.
    """
    x, condition = test_photo(network, side)
    before = _resident(reset=True)
    opened()(x, condition)
    peak = _resident(peak=True)
    return None if before is None or peak is None else max(peak - before, 0) / 1e6


@torch.no_grad()
def paces(computes: Mapping[str, Compute], network: Network, side: int) -> dict[str, float]:
    """Seconds per megapixel of each, the median over rounds; a first round is not counted.

    They take turns in a changing order, because each leaves caches and waiting threads behind for the next,
    and so that other load affects all alike. Rounds go on until all can be distinguished or time is up. With
    one thread processor time is measured, which other programs do not lengthen.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    x, condition = test_photo(network, side)
    taken: dict[str, list[float]] = {name: [] for name in computes}
    with freed_memory_kept():
        for compute in computes.values():
            compute(x, condition)
        started = time.perf_counter()
        for turn in range(MOST):
            late = time.perf_counter() - started > LONGEST * len(computes)
            if turn and (late or (turn >= FEWEST and _all_differ(taken))):
                break
            for name in random.Random(turn).sample(list(computes), len(computes)):
                taken[name].append(_seconds(computes[name], x, condition, clock))
    return {name: statistics.median(seconds) / (side**2 / 1e6) for name, seconds in taken.items()}


def _all_differ(taken: Mapping[str, list[float]]) -> bool:
    """Whether each is faster than the next in nearly all rounds, or differs negligibly from it."""
    by_pace = sorted(taken.values(), key=statistics.median)
    return all(_differ(sooner, later) for sooner, later in itertools.pairwise(by_pace))


def _differ(sooner: list[float], later: list[float]) -> bool:
    ratios = sorted(second / first for first, second in zip(sooner, later, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    return low > 1.0 or (high < ALIKE and low > 1 / ALIKE)


def _seconds(
    compute: Compute,
    x: Tensor,
    condition: Tensor | None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    started = clock()
    compute(x, condition)
    return clock() - started


def _resident(*, peak: bool = False, reset: bool = False) -> int | None:
    """Bytes of this process in memory, or their peak since `reset`; None if the system does not report it."""
    if not sys.platform.startswith("linux"):
        return None
    if reset:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # a container that hides it
        return None
