"""Gaussian noise whose strength varies over the photo."""

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Shape
from restora.degradations.parameters import Range, as_level
from restora.image import resize
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "varying_gaussian_noise")
class VaryingGaussianNoise(Degradation):
    """`y = x + s n`, `n ~ N(0, 1)`, with a smooth map s of standard deviations.

    s is within `sigma` = [low, high] / 255.

    The map is a `grid` x `grid` array of uniform numbers, enlarged bilinearly: the spatially variant noise
    with which VDN (Yue et al., NeurIPS 2019) is trained and tested. The map is the condition. Not clipped.
    """

    undamaged = (0.0,)
    centres, independent, gaussian = SYMMETRIC, True, True

    def __init__(self, *, sigma: Range, grid: int = 4) -> None:
        if grid < 2:
            raise ValueError(f"grid of noise levels must be at least 2x2, got {grid}")
        self.sigma, self.grid = as_level("sigma", sigma), grid

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        levels = generator.uniform((1, self.grid, self.grid), *self.sigma) / 255
        return {"levels": levels, "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        noise = KeyedGenerator(params["key"]).normal(clean.shape[1:])
        return noise.mul_(self.condition(clean, params)).add_(clean)

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        return resize(params["levels"], clean.shape[-2], clean.shape[-1], kernel="bilinear")
