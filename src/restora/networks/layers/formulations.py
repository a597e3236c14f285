"""Chooses between two formulations of an operation, for all networks.

The fastest on a CPU was found by measurement (benchmarks/NOTES.md). On other devices torch's own operations
are used, for which GPU libraries and the compiler have kernels. The results agree to 1e-4.

| operation | on a CPU | on a device, uncompiled | on a device, compiled |
|---|---|---|---|
| 1x1 convolution of rows (channels_last.linear) | one flat oneDNN convolution | `F.linear` | `F.linear` |
| window attention in training (windows.attend) | in place | torch's fused attention | the same |
| layer norm that keeps the mean (channels_last) | torch's norm, corrected | the same | as it is written |
| Restormer's gated feed-forward | halves apart, whole rows | both in one product | the same |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Place = Literal["cpu", "device", "compiled"]
_as_in: Place | None = None


def on_cpu(x: Tensor) -> bool:
    """Whether the CPU's formulation is used for `x`."""
    return x.device.type == "cpu" if _as_in is None else _as_in == "cpu"


def fused_by_compiler(x: Tensor) -> bool:
    """Whether plain operations are fused to one kernel: on a device, under torch.compile."""
    return torch.compiler.is_compiling() and not on_cpu(x) if _as_in is None else _as_in == "compiled"


@contextmanager
def as_in(place: Place) -> Iterator[None]:
    """Uses the formulations of another place than that of the tensors, to compare them."""
    global _as_in
    before, _as_in = _as_in, place
    try:
        yield
    finally:
        _as_in = before
