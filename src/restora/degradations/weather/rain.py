"""Rain: bright streaks of drops that fall during the exposure."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, filter_per_sample, pixel_grid, visible
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "rain")
class Rain(KernelBlur):
    """`y = 1 - (1 - x)(1 - s)`.

    The streak layer s is screened over the photo, so that it brightens and cannot clip.

    Drops fall on a share `density` of the pixels, with random brightness. Motion over `length` pixels at
    `angle` degrees (90 is straight down) smears each, and the lens blurs it by a Gaussian of standard
    deviation `width` pixels, also at its ends (the model of Garg and Nayar, IJCV 2007, and of the synthetic
    rain sets since Fu et al., CVPR 2017). `brightness` is that of the brightest streak. Numbers or ranges
    drawn uniformly per sample.

    kornia's RandomRain (0.9) paints lines of one opaque grey, 200/255, without anti-aliasing, from torch's
    own generator; on a white wall its rain is dark.
    """

    def __init__(
        self,
        *,
        density: Range,
        length: Range,
        angle: Range = (70.0, 110.0),
        width: Range = (0.5, 1.2),
        brightness: Range = (0.2, 0.6),
    ) -> None:
        self.density = as_range("density", density, least=0, most=1)
        self.length = as_range("length", length, least=1)
        self.angle = as_range("angle", angle)
        self.width = as_range("width", width, least=0.4)
        self.brightness = as_range("brightness", brightness, least=0, most=1)
        self.radius = math.ceil(self.length[1] / 2 + 2.5 * self.width[1])

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        names = ("density", "length", "angle", "width", "brightness")
        return {name: generator.uniform((), *getattr(self, name)) for name in names} | {
            "key": generator.next_keys()
        }

    def kernels(self, params: Params) -> Tensor:
        """One streak, (B,k,k): a segment convolved with a Gaussian, 1 where it is brightest."""
        length, angle, width = (params[name].view(-1, 1, 1) for name in ("length", "angle", "width"))
        rows, columns = pixel_grid(self.radius, length.device)
        angle = torch.deg2rad(angle)
        along = columns * angle.cos() - rows * angle.sin()
        across = columns * angle.sin() + rows * angle.cos()
        ends = [torch.erf((along + sign * length / 2) / (width * math.sqrt(2))) for sign in (1, -1)]
        streak = (ends[0] - ends[1]) * torch.exp(-(across / width).square() / 2)
        return visible(streak / streak.amax((1, 2), keepdim=True))

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        generator = KeyedGenerator(params["key"])
        size = (1, *clean.shape[-2:])
        drops = (generator.uniform(size) < per_sample(params["density"])).float() * generator.uniform(size)
        streaks = filter_per_sample(drops, self.kernels(params))
        streaks = streaks.clamp_(0, 1).mul_(per_sample(params["brightness"]))
        return (1 - clean).mul_(streaks).add_(clean)
