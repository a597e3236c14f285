"""Ringing and overshoot: a truncated ideal low-pass filter."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_odd_range, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "sinc_blur")
class SincBlur(KernelBlur):
    """Circular low-pass filter with its edge at `cutoff` radians per pixel, truncated to a window of `size`.

    A cutoff of pi passes all.

    `k(r) = cutoff J1(cutoff r) / (2 pi r)`, J1 the Bessel function (Wang et al., "Real-ESRGAN", ICCVW 2021,
    eq. 5). `cutoff` is a number or a range drawn uniformly per sample; the side of the window is drawn as an
    odd number. Not clipped: ringing overshoots.
    """

    def __init__(self, *, cutoff: Range = (math.pi / 3, math.pi), size: Range = 21) -> None:
        self.cutoff = as_range("cutoff", cutoff, least=1e-2, most=math.pi + 1e-3)
        low, high = as_odd_range("size", size)
        self.half_sizes = (low // 2, high // 2)
        self.radius = self.half_sizes[1]

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "cutoff": generator.uniform((), *self.cutoff),
            "half_size": generator.integers(self.half_sizes[0], self.half_sizes[1] + 1),
        }

    def kernels(self, params: Params) -> Tensor:
        cutoff, half = (params[name].view(-1, 1, 1) for name in ("cutoff", "half_size"))
        rows, columns = pixel_grid(self.radius, cutoff.device)
        distance = (rows.square() + columns.square()).sqrt()
        weights = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance.clamp(min=1))
        weights = torch.where(distance == 0, cutoff.square() / (4 * math.pi), weights)
        return normalised(weights * ((rows.abs() <= half) & (columns.abs() <= half)))
