"""Haze: light scattered into the line of sight, increasing with distance."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample
from restora.image import resize
from restora.keyed import KeyedGenerator
from restora.registry import register

_GRID = 5


@register("degradation", "haze")
class Haze(Degradation):
    """`y = x t + A (1 - t)`, `t = exp(-density d)` (Koschmieder's law; He, Sun and Tang, CVPR 2009, eq. 1).

    A photo has no depth map, so one is drawn: d runs from 0 to 1 and grows from the lower border to the
    upper one, as over open ground, with smooth random hills of a third of that weight. `density` is the
    optical depth at d = 1, and `airlight` the grey A of the haze (each channel within 2% of it); numbers or
    ranges drawn uniformly per sample.
    """

    def __init__(self, *, density: Range, airlight: Range = (0.75, 1.0)) -> None:
        self.density = as_range("density", density, least=0)
        self.airlight = as_range("airlight", airlight, least=0, most=1)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        airlight = generator.uniform((), *self.airlight)
        tint = generator.uniform((shape[1],), -0.02, 0.02)
        return {
            "density": generator.uniform((), *self.density),
            "airlight": (airlight[:, None] + tint).clamp_(0, 1),
            "hills": generator.uniform((1, _GRID, _GRID)),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        height, width = clean.shape[-2:]
        ground = torch.linspace(1, 0, height, device=clean.device).view(1, 1, -1, 1)
        depth = resize(params["hills"], height, width).mul_(0.25).add_(ground, alpha=0.75).clamp_(0, 1)
        seen = torch.exp(depth.mul_(-per_sample(params["density"])))
        return torch.lerp(params["airlight"][..., None, None], clean, seen)
