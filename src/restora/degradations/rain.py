"""Rain: streaks of light that drops draw during the exposure."""

from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.filtering import KernelBlur, filter_per_sample
from restora.degradations.keyed import KeyedGenerator
from restora.degradations.motion_blur import MotionBlur
from restora.degradations.parameters import Range, as_range, per_sample


class Rain(KernelBlur):
    """`y = 1 - (1 - x)(1 - s)`: the streak layer s is screened over the photo, so that it brightens and
    cannot clip.

    Drops fall on a share `density` of the pixels, with random brightness, and motion over `length` pixels at
    `angle` degrees (90 is straight down) smears them (the model of Garg and Nayar, IJCV 2007, and of the
    synthetic rain sets since Fu et al., CVPR 2017). `brightness` is that of the brightest streak. Numbers or
    ranges drawn uniformly per sample.

    kornia's RandomRain (0.9) paints lines of one opaque grey, 200/255, with whole pixels as edges, from
    torch's own generator; on a white wall its rain is dark.
    """

    def __init__(
        self,
        *,
        density: Range,
        length: Range,
        angle: Range = (70.0, 110.0),
        brightness: Range = (0.3, 0.8),
    ) -> None:
        self.density = as_range("density", density, least=0, most=1)
        self.brightness = as_range("brightness", brightness, least=0, most=1)
        self.fall = MotionBlur(length=length, angle=angle)
        self.radius = self.fall.radius

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "density": generator.uniform((), *self.density),
            "brightness": generator.uniform((), *self.brightness),
            "fall": self.fall.sample(shape, generator.fork("fall")),
            "key": generator.next_keys(),
        }

    def kernels(self, params: Params) -> Tensor:
        return self.fall.kernels(params["fall"])

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        generator = KeyedGenerator(params["key"])
        size = (1, *clean.shape[-2:])
        drops = (generator.uniform(size) < per_sample(params["density"])).float() * generator.uniform(size)
        streaks = filter_per_sample(drops, self.kernels(params))
        # one bright drop alone becomes a streak of the full brightness
        length = per_sample(params["fall"]["length"]).clamp(min=1)
        streaks = streaks.mul_(length).clamp_(0, 1).mul_(per_sample(params["brightness"]))
        return (1 - clean).mul_(streaks).add_(clean)
