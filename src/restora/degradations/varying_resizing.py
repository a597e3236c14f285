"""Resizing every sample of a batch to a size of its own, on a canvas that holds them all.

A canvas is a tensor (B,C,H,W) of which sample b uses the first size[b] rows and columns; beyond them it
repeats the sample's edge. A resize is two matrix products with a matrix per sample, so no sample waits for
another and no size is read back from the device.

Legend: B samples, n input canvas, m output canvas.
"""

import torch
from torch import Tensor

from restora.degradations.resizing import profile

AREA, BILINEAR, BICUBIC = 0, 1, 2


def interpolation_matrices(m: int, n: int, target: Tensor, source: Tensor, mode: Tensor) -> Tensor:
    """(B,m,n) float32, row i of sample b making pixel i of `target[b]` from the first `source[b]` inputs.

    `mode` (B,) is AREA, BILINEAR or BICUBIC, as `torch.nn.functional.interpolate` defines them (half-pixel
    centres, not anti-aliased, borders repeated, cubic with a = -3/4). Sizes are whole numbers in float32,
    (B,).
    """
    target, source, mode = (t.view(-1, 1, 1) for t in (target, source, mode))
    row = torch.minimum(torch.arange(m, device=target.device).view(1, -1, 1), target - 1)
    column = torch.arange(n, device=target.device).view(1, 1, -1)
    # the products are whole numbers below 2^24, so the divisions round to the right side
    start, stop = (row * source / target).floor(), ((row + 1) * source / target).ceil()
    area = ((column >= start) & (column < stop)) / (stop - start)
    distance = column - ((row + 0.5) * (source / target) - 0.5)
    # a tap left of the first column is at most two columns away, and likewise on the right
    left, last = distance[..., :1], (source - 1 - column)
    right = distance[..., :1] + (source - 1)
    out = area
    for name, code in (("bilinear", BILINEAR), ("bicubic", BICUBIC)):
        taps = profile(name, distance, a=-0.75) * (last >= 0)
        beyond = profile(name, left - 1, a=-0.75) + profile(name, left - 2, a=-0.75)
        taps[..., :1] += beyond
        beyond = profile(name, right + 1, a=-0.75) + profile(name, right + 2, a=-0.75)
        taps += beyond * (last == 0)
        out = torch.where(mode == code, taps, out)
    return out


def reduction_matrices(m: int, n: int, target: Tensor, source: Tensor) -> Tensor:
    """Like `interpolation_matrices`, anti-aliased bicubic (a = -1/2); weights beyond the border are shared
    out.
    """
    target, source = target.view(-1, 1, 1), source.view(-1, 1, 1)
    row = torch.minimum(torch.arange(m, device=target.device).view(1, -1, 1), target - 1)
    column = torch.arange(n, device=target.device).view(1, 1, -1)
    step = source / target
    taps = profile("bicubic", (column - ((row + 0.5) * step - 0.5)) / step.clamp(min=1)) * (column < source)
    return taps / taps.sum(-1, keepdim=True)


def apply_matrices(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B,C,n,n') times (B,m,n) and (B,m',n') -> (B,C,m,m')."""
    return rows[:, None] @ (x @ columns.mT[:, None])
