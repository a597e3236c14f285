"""Photon noise: light comes in whole photons."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.noise.poisson import poisson
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "poisson_noise")
class PoissonNoise(Degradation):
    """`y = Poisson(x N) / N` per pixel and channel, N = `photons` counted where the photo is white.

    The variance is x / N (Hasinoff, "Photon, Poisson noise", in Computer Vision: A Reference Guide, 2014).
    One number or a range per sample, drawn uniformly. Not clipped: y may exceed 1.
    """

    centres, independent = frozenset({"mean"}), True

    def __init__(self, *, photons: Range) -> None:
        self.photons = as_range("photons", photons, least=1e-3)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"photons": generator.uniform((), *self.photons), "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        photons = per_sample(params["photons"])
        return poisson((clean * photons).clamp_(min=0), KeyedGenerator(params["key"])).div_(photons)
