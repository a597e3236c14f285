"""Greyscale: the input of colourisation."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import require_colour
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "greyscale")
class Greyscale(Degradation):
    """Luma of BT.601 (0.299 R + 0.587 G + 0.114 B), in three channels or, with `channels=1`, alone."""

    needs_colour = True
    out_channels: int

    def __init__(self, *, channels: int = 3) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels of a greyscale photo must be 1 or 3, got {channels}")
        self.out_channels = channels

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        require_colour("greyscale", shape)
        return {}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        from kornia.color import rgb_to_grayscale

        return rgb_to_grayscale(clean).repeat(1, self.out_channels, 1, 1)
