"""Straight motion during the exposure, with a length and a direction per sample."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "motion_blur")
class MotionBlur(KernelBlur):
    """Uniform motion over `length` pixels in direction `angle`.

    The angle is in degrees, counter-clockwise from the horizontal.

    The point-spread function is the segment itself: each pixel receives the length of the segment within its
    square, which is exact and anti-aliased at any angle (the motion blur of Lee, "Review of image-blur models
    in a photographic system using the principles of optics", Optical Engineering 1990). kornia's motion blur
    has one integer length for a batch and rotates a bar of pixels: at 45 degrees its 9 pixels are 7 taps or,
    bilinear, a band of 23.
    """

    def __init__(self, *, length: Range, angle: Range = (0.0, 180.0)) -> None:
        self.length = as_range("length", length, least=0)
        self.angle = as_range("angle", angle)
        self.radius = math.ceil(max(self.length[1] - 1, 0) / 2)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"length": generator.uniform((), *self.length), "angle": generator.uniform((), *self.angle)}

    def kernels(self, params: Params) -> Tensor:
        angle = torch.deg2rad(params["angle"]).view(-1, 1, 1)
        half = params["length"].clamp(min=1e-3).view(-1, 1, 1) / 2
        rows, columns = pixel_grid(self.radius, angle.device)
        enter, leave = _crossing(columns, angle.cos())
        enter_row, leave_row = _crossing(rows, -angle.sin())
        enter = torch.maximum(enter, enter_row).clamp(min=-half)
        leave = torch.minimum(leave, leave_row).clamp(max=half)
        return normalised((leave - enter).clamp_(min=0))


def _crossing(centre: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """When a point that starts at 0 and moves at `speed` enters and leaves [centre - 1/2, centre + 1/2]."""
    speed = torch.where(speed.abs() < 1e-6, 1e-6, speed)
    a, b = (centre - 0.5) / speed, (centre + 0.5) / speed
    return torch.minimum(a, b), torch.maximum(a, b)
