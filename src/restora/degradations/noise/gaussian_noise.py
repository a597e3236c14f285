"""Additive white Gaussian noise, not clipped (the denoising papers' convention)."""

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Severity, Shape
from restora.degradations.parameters import Range, as_level, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "gaussian_noise")
class GaussianNoise(Degradation):
    """`y = x + n`, `n ~ N(0, (sigma/255)^2)` per pixel and channel. Not clipped.

    `sigma` is on the 8-bit scale: one number, or a range (low, high) drawn uniformly per sample. The
    condition is the noise-level map of FFDNet (Zhang, Zuo and Zhang, TIP 2018): sigma/255 at every pixel.
    """

    undamaged = (0.0,)
    centres, independent, gaussian = SYMMETRIC, True, True

    def __init__(self, *, sigma: Range) -> None:
        self.sigma = as_level("sigma", sigma)

    @property
    def severity(self) -> Severity:
        return Severity("sigma", *self.sigma)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"sigma": generator.uniform((), *self.sigma) / 255, "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        noise = KeyedGenerator(params["key"]).normal(clean.shape[1:])
        return noise.mul_(per_sample(params["sigma"])).add_(clean)

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        batch, _, height, width = clean.shape
        return per_sample(params["sigma"]).expand(batch, 1, height, width)
