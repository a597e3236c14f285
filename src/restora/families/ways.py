"""The ways to compute a network's training pass, the results of trying them, and the choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from restora.families.compiling import AUTO
from restora.words import three_digits

_WORTH = 0.97
"""A later way is chosen if it needs less than this share of the time of an earlier, simpler one."""


@dataclass(frozen=True)
class Way:
    """A way to compute a pass: by block, or the whole network in a mode of torch.compile."""

    words: str
    by_block: bool = False
    mode: str | None = None
    graphs: bool = False
    """Whether the pass is replayed as a CUDA graph."""

    @property
    def whole(self) -> bool:
        return self.mode is not None


UNCOMPILED = Way("uncompiled")
BY_BLOCK = Way("by block", by_block=True)
ONE_CUDA_GRAPH = Way("as one CUDA graph", mode="reduce-overhead", graphs=True)
_GRAPH_MODES = ("reduce-overhead", "max-autotune")


def ways_of(mode: str, device: torch.device) -> tuple[Way, ...]:
    """The ways to try, the simplest first; `auto` on a device other than CUDA is only uncompiled."""
    if mode == AUTO:
        return (UNCOMPILED, BY_BLOCK, ONE_CUDA_GRAPH) if device.type == "cuda" else (UNCOMPILED,)
    graphs = device.type == "cuda" and mode in _GRAPH_MODES
    return (Way("as one CUDA graph" if graphs else "as one graph", mode=mode, graphs=graphs),)


@dataclass(frozen=True)
class Tried:
    """The result of trying one way."""

    way: Way
    seconds: float | None = None
    compiling: float = 0.0
    note: str = ""
    """Why there are no seconds, or a remark on them."""

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.way.words} {self.note}"
        compiled = [] if self.way == UNCOMPILED else [f"compiled in {self.compiling:.0f} s"]
        said = ", ".join([*compiled, *([self.note] if self.note else [])])
        return f"{self.way.words} {three_digits(1e3 * self.seconds)} ms" + (f" ({said})" if said else "")


def fastest(tried: Sequence[Tried]) -> Way:
    """The simplest way that works, unless a later one is clearly faster (`_WORTH`)."""
    best: Tried | None = None
    for found in tried:
        if found.seconds is None:
            continue
        if best is None or best.seconds is None or found.seconds < _WORTH * best.seconds:
            best = found
    return UNCOMPILED if best is None else best.way
