"""Stages in an order drawn per sample."""

from collections.abc import Mapping

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Shape
from restora.degradations.compose.composition import Chain
from restora.degradations.compose.selection import where_drawn
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "shuffled")
class Shuffled(Chain):
    """A chain whose stages follow one another in a random order per sample.

    BSRGAN: Zhang et al., ICCV 2021, sec. 3.

    At every place in the order each of the N stages is computed, and the one of the sample's order selected:
    on a device N squared evaluations without waiting, on a CPU only those that are needed. The stages must
    keep the size; a reduction goes before or after.
    """

    def __init__(self, *, stages: Mapping[str, Degradation]) -> None:
        super().__init__(stages=stages)
        self.out_channels = None  # one channel is repeated in those of the samples that have all
        if any(part.centres != SYMMETRIC for part in self.parts):  # each may come last
            self.centres = frozenset()

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        if self.scale != 1:
            raise ValueError(
                f"shuffled stages must keep the size, got scale {self.scale}: reduce in a chain around them"
            )
        order = generator.fork("order").uniform((len(self.stages),)).argsort(dim=1, stable=True)
        drawn = {name: stage.sample(shape, generator.fork(name)) for name, stage in self.stages.items()}
        return {"order": order, **drawn}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        x = clean
        for place in range(len(self.stages)):
            here, changed = params["order"][:, place], x
            for index, (name, stage) in enumerate(self.stages.items()):
                changed = where_drawn(here == index, x, stage.degrade, params[name], changed)
            x = changed
        return x
