"""Which formulation of an operation is computed, where there are two: the one place that decides.

What is fastest on a CPU was measured (benchmarks/NOTES.md). Elsewhere torch's own operations are taken, for
which a GPU's libraries and the compiler have kernels. The numbers are the same, to 1e-4.

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
    """Whether a CPU's formulation is computed for `x`."""
    return x.device.type == "cpu" if _as_in is None else _as_in == "cpu"


def fused_by_compiler(x: Tensor) -> bool:
    """Whether what is written out becomes one kernel: on a device, where torch.compile traces."""
    return torch.compiler.is_compiling() and not on_cpu(x) if _as_in is None else _as_in == "compiled"


@contextmanager
def as_in(place: Place) -> Iterator[None]:
    """Computes the formulations of another place than the one where the tensors are, to compare them."""
    global _as_in
    before, _as_in = _as_in, place
    try:
        yield
    finally:
        _as_in = before
