"""Over- and under-exposure."""

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
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
    """sRGB values (B,C,H,W) in [0,1] to light; the curve is the same for every channel, C 1 or 3."""
    return rgb_to_linear_rgb(_three(x.clamp(0, 1)))[:, : x.shape[1]]


def encoded(light: Tensor) -> Tensor:
    """Light (B,C,H,W) in [0,1] to sRGB values."""
    return linear_rgb_to_rgb(_three(light))[:, : light.shape[1]]


def _three(x: Tensor) -> Tensor:
    return x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)
