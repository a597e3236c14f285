"""Salt and pepper: dead and saturated pixels."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "salt_and_pepper")
class SaltAndPepper(Degradation):
    """A share `density` of the pixels becomes white (a share `salt` of those) or black.

    `per_channel` draws each channel separately, as for a damaged sensor; otherwise whole pixels are lost.
    MATLAB's imnoise 'salt & pepper' is `salt` 0.5 per channel. Both shares are a number or a range per
    sample.
    """

    independent = True

    def __init__(self, *, density: Range, salt: Range = 0.5, per_channel: bool = False) -> None:
        self.density = as_range("density", density, least=0, most=1)
        self.salt = as_range("salt", salt, least=0, most=1)
        self.per_channel = per_channel
        white, black = self.density[1] * self.salt[1], self.density[1] * (1 - self.salt[0])
        if max(white, black) < 0.5:  # less than half become white, and less than half black
            self.centres |= {"median"}
        if max(white, black) < 1 - self.density[1]:
            self.centres |= {"mode"}

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        density = generator.uniform((), *self.density)
        return {"density": density, "salt": generator.uniform((), *self.salt), "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        channels = clean.shape[1] if self.per_channel else 1
        draw = KeyedGenerator(params["key"]).uniform((channels, *clean.shape[2:]))
        density, salt = per_sample(params["density"]), per_sample(params["salt"])
        return torch.where(draw < density, (draw < density * salt).to(clean.dtype), clean)
