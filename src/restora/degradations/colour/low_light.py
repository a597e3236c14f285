"""Low light: a photo of too little light, with the sensor's noise and the camera's processing."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.colour.exposure import encoded, linear_light
from restora.degradations.noise.poisson import poisson
from restora.degradations.parameters import Range, as_range, per_sample
from restora.image import round_to_8_bits
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "low_light")
class LowLight(Degradation):
    """Light reduced by `stops`, with shot and read noise, encoded by sRGB's tone curve, in 8 bits.

    A white pixel at full exposure frees `electrons` electrons; `read_noise` is in electrons rms (the noise
    model of Wei et al., "A physics-based noise formation model for extreme low-light raw denoising", CVPR
    2020, without row noise). kornia darkens by gamma curves and gradients, without a sensor. Numbers or
    ranges drawn uniformly per sample.
    """

    def __init__(
        self, *, stops: Range, electrons: Range = (1000.0, 10000.0), read_noise: Range = (2.0, 10.0)
    ) -> None:
        self.stops = as_range("stops", stops, least=0, most=16)
        self.electrons = as_range("electrons", electrons, least=1)
        self.read_noise = as_range("read_noise", read_noise, least=0)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "stops": generator.uniform((), *self.stops),
            "electrons": generator.uniform((), *self.electrons),
            "read_noise": generator.uniform((), *self.read_noise),
            "key": generator.next_keys(),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        generator = KeyedGenerator(params["key"])
        electrons = per_sample(params["electrons"])
        light = linear_light(clean) * (electrons * torch.exp2(-per_sample(params["stops"])))
        counted = poisson(light, generator)
        counted += generator.normal(clean.shape[1:]).mul_(per_sample(params["read_noise"]))
        photo = encoded((counted / electrons).clamp_(0, 1))
        return round_to_8_bits(photo)
