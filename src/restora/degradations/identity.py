"""No degradation: the baseline of a comparison, and the undamaged branch of a mixture."""

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Shape
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "identity")
class Identity(Degradation):
    """Gives the clean photos back."""

    centres, independent = SYMMETRIC, True

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return clean
