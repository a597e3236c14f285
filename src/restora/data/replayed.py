"""Degrades a batch with one launch: a CUDA graph of its kernels, recorded once and replayed.

Degrading a batch takes hundreds of small kernel launches (benchmarks/NOTES.md counts them), which the host
makes one by one. For batches of one size they are the same, because no degradation branches on values that it
has drawn (tests/contracts/test_degradations_on_devices.py): CUDA can keep them as a graph.

Enters: tensors of a batch on the device, uint8 photos and keys. Leaves: the tensors that `make` gives for
them, in memory of their own. The first batch of a size is made without a graph, which fills caches; the
second is recorded, and compared with its result without a graph. If that fails, a log line gives the reason,
and batches of this size are made without a graph. Note: not measured on a GPU yet, so it is off unless
RESTORA_REPLAY=1.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Made = tuple[Tensor | None, ...]
Make = Callable[..., Made]
_Size = tuple[tuple[tuple[int, ...], torch.dtype], ...]
SWITCH = "RESTORA_REPLAY"
"""The environment variable that turns it on (1) or off (0)."""
_MOST_SIZES = 16
"""The largest number of batch sizes that are recorded; each keeps memory of its own."""
_NEAR = 1e-4
"""Mean difference up to which a replay counts as equal: the order of summation may differ."""


def wanted(device: torch.device) -> bool:
    """Whether batches are replayed on the device."""
    return device.type == "cuda" and os.environ.get(SWITCH, "0") == "1"


class Replayed:
    """`make`, replayed where possible: then its Python runs only for the first two batches of each size."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self._seen: set[_Size] = set()
        self._recordings: dict[_Size, _Recording | None] = {}
        """None for a size that is made without a graph."""

    def __call__(self, *given: Tensor) -> Made:
        size = tuple((tuple(value.shape), value.dtype) for value in given)
        if size in self._seen and size not in self._recordings and len(self._recordings) < _MOST_SIZES:
            self._recordings[size], made = self._recorded(given)
            return made
        self._seen.add(size)
        recording = self._recordings.get(size)
        return self.make(*given) if recording is None else recording.replay(given)

    def _recorded(self, given: tuple[Tensor, ...]) -> tuple["_Recording | None", Made]:
        """A recording, or None if it fails, and the batch."""
        try:
            with _refusing_to_wait():  # a recording that fails halfway would leak its memory
                plain = self.make(*given)
            recording = _Recording(self.make, given)
            made = recording.replay(given)
            _compare(made, plain)
        except Exception as error:  # from a driver, or from the degradation of a plugin
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning("batches are not degraded by one launch (%s): they are launch by launch", reason)
            return None, self.make(*given)
        return recording, made


class _Recording:
    """The CUDA graph of `make`, with the fixed memory of its inputs and outputs."""

    def __init__(self, make: Make, given: tuple[Tensor, ...]) -> None:
        self._given = [value.clone() for value in given]
        self._graph = torch.cuda.CUDAGraph()
        # other threads, such as the one that pins memory, may continue to call CUDA
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._made = make(*self._given)

    def replay(self, given: tuple[Tensor, ...]) -> Made:
        """The batch made from `given`, copied out of the memory that the next replay overwrites."""
        for kept, value in zip(self._given, given, strict=True):
            kept.copy_(value)
        self._graph.replay()
        return tuple(None if value is None else value.clone() for value in self._made)


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Raises RuntimeError where the host waits for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _compare(made: Made, plain: Made) -> None:
    """Raises ValueError if a replay differs from the plain result."""
    for got, want in zip(made, plain, strict=True):
        if got is None or want is None:
            continue
        if not float((got - want).abs().mean()) <= _NEAR:
            raise ValueError("a replay gives other photos")
