"""Defocus: the disc of confusion of an ideal lens."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register

_LINES = 32
"""Lines per pixel on which the disc is measured; the covered area of a pixel is then exact to 1e-3 of a
pixel.
"""


@register("degradation", "defocus_blur")
class DefocusBlur(KernelBlur):
    """A uniform disc of `radius` pixels, a number or a range drawn uniformly per sample.

    By geometric optics: Lee, "Review of image-blur models in a photographic system using the principles
    of optics", Optical Engineering 1990.

    A weight of the kernel is the part of the pixel that the disc covers: exact along x, by 32 lines along y.
    """

    def __init__(self, *, radius: Range) -> None:
        self.radii = as_range("radius", radius, least=0)
        self.radius = math.ceil(max(self.radii[1] - 0.5, 0))

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"radius": generator.uniform((), *self.radii)}

    def kernels(self, params: Params) -> Tensor:
        disc = params["radius"].clamp(min=1e-2).view(-1, 1, 1)
        _, columns = pixel_grid(self.radius, disc.device)
        side = 2 * self.radius + 1
        # lines at odd half steps; the innermost move to the centre, so that a tiny disc is still hit
        lines = (
            torch.arange(side * _LINES, dtype=torch.float32, device=disc.device)
            .add_(0.5)
            .div_(_LINES)
            .sub_(side / 2)
        )
        lines = torch.where(lines.abs() < 0.51 / _LINES, 0.0, lines).view(1, -1, 1)
        chord = (disc.square() - lines.square()).clamp_(min=0).sqrt_()  # half its length
        covered = torch.minimum(chord, columns + 0.5) - torch.maximum(-chord, columns - 0.5)
        covered = covered.clamp_(min=0).view(disc.shape[0], side, _LINES, side).sum(2)
        return normalised(covered)
