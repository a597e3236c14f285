"""Noise that went through JPEG, as in photos from a camera.

It is correlated from pixel to pixel and from channel to channel.
"""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.compression.jpeg import jpeg
from restora.degradations.parameters import Range, as_level, as_whole_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "correlated_noise")
class CorrelatedNoise(Degradation):
    """`y = x + JPEG(1/2 + n) - 1/2`, `n ~ N(0, (sigma/255)^2)`: white noise on a grey card, saved as JPEG.

    `sigma` is on the 8-bit scale, `quality` is libjpeg's; each is a number or a range per sample. The
    remaining noise is weaker than sigma and has the blocks and blotches of the codec (4:2:0). This is a
    construction of this project, not the model of a camera. Not clipped.
    """

    def __init__(self, *, sigma: Range, quality: Range) -> None:
        self.sigma = as_level("sigma", sigma)
        self.quality = as_whole_range("quality", quality, least=1, most=100)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "sigma": generator.uniform((), *self.sigma) / 255,
            "quality": generator.integers(self.quality[0], self.quality[1] + 1),
            "key": generator.next_keys(),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        noise = KeyedGenerator(params["key"]).normal(clean.shape[1:]).mul_(per_sample(params["sigma"]))
        # the codec stores the grey 128/255 without error
        grey = 128 / 255
        return jpeg(noise.add_(grey), params["quality"]).sub_(grey).add_(clean)
