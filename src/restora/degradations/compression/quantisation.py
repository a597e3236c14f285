"""Too few grey levels: banding."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_whole_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "quantisation")
class Quantisation(Degradation):
    """Every channel is clipped to [0,1] and rounded to `levels` equally spaced values.

    `levels` is a whole number or a range per sample. The uniform quantiser: Gray and Neuhoff,
    "Quantization", IEEE Trans. Information Theory 1998.

    256 levels store a photo in 8 bits, at the end of a chain whose noise leaves [0,1].
    """

    def __init__(self, *, levels: Range) -> None:
        self.levels = as_whole_range("levels", levels, least=2, most=65536)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"levels": generator.integers(self.levels[0], self.levels[1] + 1)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        steps = per_sample(params["levels"].to(clean.dtype) - 1)
        return clean.clamp(0, 1).mul_(steps).round_().div_(steps)
