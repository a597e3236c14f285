"""Sepia toning."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample, require_colour
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "sepia")
class Sepia(Degradation):
    """`(1 - strength) x + strength sepia(x)`, clipped to [0,1].

    `strength` is within [0, 1], a number or a range.

    The toning matrix is the customary one that kornia ships.
    """

    needs_colour = True

    def __init__(self, *, strength: Range = 1.0) -> None:
        self.strength = as_range("strength", strength, least=0, most=1)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        require_colour("sepia", shape)
        return {"strength": generator.uniform((), *self.strength)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        from kornia.color import sepia_from_rgb

        toned = sepia_from_rgb(clean, rescale=False).clamp_(0, 1)
        return torch.lerp(clean, toned, per_sample(params["strength"]))
