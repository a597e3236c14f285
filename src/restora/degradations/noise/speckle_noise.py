"""Speckle: noise proportional to the light, as in coherent imaging."""

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "speckle_noise")
class SpeckleNoise(Degradation):
    """`y = x + x n`, `n ~ N(0, strength^2)` per pixel and channel (MATLAB's imnoise 'speckle').

    It is not clipped.
    """

    centres, independent = SYMMETRIC, True

    def __init__(self, *, strength: Range) -> None:
        self.strength = as_range("strength", strength, least=0)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"strength": generator.uniform((), *self.strength), "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        noise = KeyedGenerator(params["key"]).normal(clean.shape[1:])
        return noise.mul_(per_sample(params["strength"])).add_(1).mul_(clean)
