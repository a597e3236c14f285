"""Resizing every sample of a batch to a size of its own, on a canvas that holds them all.

A canvas is a tensor (B,C,H,W) of which sample b uses the first size[b] rows and columns; beyond them it
repeats the sample's edge. A resize is two matrix products with a matrix per sample, so no sample waits for
another and no size is read back from the device.

Legend: B samples, n input canvas, m output canvas.
"""

import torch
from torch import Tensor

from restora.image import profile

AREA, BILINEAR, BICUBIC = 0, 1, 2


def interpolation_matrices(m: int, n: int, target: Tensor, source: Tensor, mode: Tensor) -> Tensor:
    """(B,m,n) float32: row i of sample b gives pixel i of `target[b]` from the first `source[b]` inputs.

    `mode` (B,) is AREA, BILINEAR or BICUBIC, as `torch.nn.functional.interpolate` defines them (half-pixel
    centres, not anti-aliased, borders repeated, cubic with a = -3/4). Sizes are whole numbers in float32,
    (B,).
    """
    target, source, mode = (t.view(-1, 1, 1) for t in (target, source, mode))
    row = torch.minimum(torch.arange(m, device=target.device).view(1, -1, 1), target - 1)
    column = torch.arange(n, device=target.device).view(1, 1, -1)
    # the products are whole numbers below 2^24, so the divisions round to the right side
    start, stop = (row * source / target).floor(), ((row + 1) * source / target).ceil()
    matrices = ((column >= start) & (column < stop)) * ((mode == AREA) / (stop - start))

    place = (row + 0.5) * (source / target) - 0.5  # where row i samples
    taps = place.floor() + torch.arange(-1, 3, device=target.device)
    weights = _profiles(taps - place, mode) * (mode != AREA)
    taps = torch.minimum(taps.clamp_(min=0), source - 1).long()
    for tap in range(4):  # one by one: taps beyond the border share its pixel, in a GPU's arbitrary order
        matrices.scatter_add_(-1, taps[..., tap : tap + 1], weights[..., tap : tap + 1])
    return matrices


def _profiles(distance: Tensor, mode: Tensor) -> Tensor:
    """Bilinear or bicubic kernel by the sample's mode: two cubics in |distance| that differ."""
    cubic = (mode == BICUBIC).float()
    t = distance.abs()
    near = (t * (1.25 * cubic) - 2.25 * cubic).mul_(t).sub_(1 - cubic).mul_(t).add_(1)
    far = (t * (-0.75 * cubic) + 3.75 * cubic).mul_(t).sub_(6 * cubic).mul_(t).add_(3 * cubic)
    return torch.where(t <= 1, near, far).mul_(t < 2)


def reduction_matrices(m: int, n: int, target: Tensor, source: Tensor) -> Tensor:
    """Like `interpolation_matrices`, anti-aliased bicubic (a = -1/2).

    Weights beyond the border are redistributed by normalisation.
    """
    target, source = target.view(-1, 1, 1), source.view(-1, 1, 1)
    row = torch.minimum(torch.arange(m, device=target.device).view(1, -1, 1), target - 1)
    column = torch.arange(n, device=target.device).view(1, 1, -1)
    step = source / target
    taps = profile("bicubic", (column - ((row + 0.5) * step - 0.5)) / step.clamp(min=1)) * (column < source)
    return taps / taps.sum(-1, keepdim=True)


def apply_matrices(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B,C,n,n') times (B,m,n) and (B,m',n') -> (B,C,m,m')."""
    batch, channels, height, _ = x.shape
    # one product per sample along the width; a broadcast one would first copy the matrices for every channel
    wide = torch.bmm(x.reshape(batch, channels * height, -1), columns.mT).view(batch, channels, height, -1)
    return rows[:, None] @ wide
