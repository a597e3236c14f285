"""Resizing as two matrix products: bicubic, bilinear, area and nearest, at any scale.

`bicubic` with anti-aliasing is MATLAB's `imresize`, by which super-resolution is judged: Keys' cubic (a =
-1/2), widened by the reduction, pixel centres at half integers, borders mirrored with the edge pixel
repeated, weights that sum to one. A matrix is made once per size in float64 on the host, so that every
device multiplies by the same numbers.

Legend: B samples, C channels, H height, W width, n input size, m output size.
"""

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from restora.degradations.base import full_precision

Kernel = Literal["bicubic", "bilinear", "area", "nearest"]
KERNELS: tuple[str, ...] = get_args(Kernel)
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}


def resize(
    x: Tensor, height: int, width: int, *, kernel: Kernel = "bicubic", antialias: bool = True
) -> Tensor:
    """(B,C,H,W) -> (B,C,height,width), float32. `antialias` widens bicubic and bilinear kernels when
    reducing.
    """
    with full_precision(x.device):
        rows = matrix(x.shape[-2], height, kernel, antialias, x.device)
        columns = matrix(x.shape[-1], width, kernel, antialias, x.device)
        # the product that shrinks the data more comes first
        if height * x.shape[-1] <= width * x.shape[-2]:
            return (rows @ x) @ columns.T
        return rows @ (x @ columns.T)


@lru_cache(maxsize=128)
def matrix(n: int, m: int, kernel: Kernel, antialias: bool, device: torch.device) -> Tensor:
    """(m,n) float32: output i is the sum over j of entry (i, j) times input j."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel is one of {', '.join(KERNELS)}, got {kernel!r}")
    step = n / m
    if kernel == "nearest":
        centre = ((torch.arange(m, dtype=torch.float64) + 0.5) * step).floor_().long().clamp_(max=n - 1)
        return torch.nn.functional.one_hot(centre, n).float().to(device)
    if kernel == "area":
        return _overlap(n, m, step).float().to(device)
    widen = max(step, 1.0) if antialias else 1.0
    reach = int(_SUPPORT[kernel] * widen) + 1
    taps = torch.arange(-reach, n + reach)
    position = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) * step - 0.5
    weights = profile(kernel, (taps - position) / widen)
    folded = torch.zeros(m, n, dtype=torch.float64).index_add_(1, mirrored(taps, n), weights)
    return (folded / folded.sum(1, keepdim=True)).float().to(device)


def profile(kernel: Kernel, distance: Tensor, a: float = -0.5) -> Tensor:
    """The bilinear or bicubic kernel at a distance in pixels of the coarser grid; `a` is the cubic's slope
    at 1.

    -1/2 is MATLAB's and Pillow's, -3/4 OpenCV's and torch's.
    """
    t = distance.abs()
    if kernel == "bilinear":
        return (1 - t).clamp_(min=0)
    # Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 4, 7 and 8
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, far) * (t < 2)


def mirrored(index: Tensor, size: int) -> Tensor:
    """Indices outside [0, size) reflected about the edges, the edge pixel repeated."""
    folded = index.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def _overlap(n: int, m: int, step: float) -> Tensor:
    """The share of output interval [i step, (i+1) step) that lies in input pixel j."""
    start = torch.arange(m, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(n, dtype=torch.float64)
    return (torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)).clamp_(min=0) / step
