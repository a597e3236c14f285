"""Over- and under-exposure."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "exposure")
class Exposure(Degradation):
    """The light of the scene multiplied by 2^`stops`.

    The photo is linearised by sRGB's tone curve (IEC 61966-2-1), scaled, clipped at white and encoded again.
    `stops` is a number or a range per sample; negative is too dark.
    """

    def __init__(self, *, stops: Range) -> None:
        self.stops = as_range("stops", stops, least=-16, most=16)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"stops": generator.uniform((), *self.stops)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        light = linear_light(clean) * per_sample(torch.exp2(params["stops"]))
        return encoded(light.clamp_(0, 1))


def linear_light(x: Tensor) -> Tensor:
    """sRGB values in [0,1] to light, of any shape; kornia's, which is for three channels, are equal."""
    x = x.clamp(0, 1)
    return torch.where(x > 0.04045, ((x + 0.055) / 1.055).pow(2.4), x / 12.92)


def encoded(light: Tensor) -> Tensor:
    """Light in [0,1] to sRGB values, of any shape."""
    return torch.where(light > 0.0031308, 1.055 * light.pow(1 / 2.4) - 0.055, 12.92 * light)
