"""Stages in an order drawn per sample."""

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.composition import Chain
from restora.degradations.keyed import KeyedGenerator
from restora.degradations.parameters import per_sample


class Shuffled(Chain):
    """A chain whose stages follow one another in a random order per sample (BSRGAN: Zhang et al., ICCV 2021,
    sec. 3).

    N stages are computed N times each, and at every place the one that the sample's order has there is
    selected: N squared evaluations, and no wait for the device. The stages must keep the size; a reduction
    goes before or after.
    """

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        if self.scale != 1:
            raise ValueError(
                f"shuffled stages must keep the size, got scale {self.scale}: reduce in a chain around them"
            )
        order = generator.fork("order").uniform((len(self.stages),)).argsort(dim=1, stable=True)
        return {"order": order, **super().sample(shape, generator)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        x = clean
        for place in range(len(self.stages)):
            here = per_sample(params["order"][:, place])
            changed = x
            for index, (name, stage) in enumerate(self.stages.items()):
                changed = torch.where(here == index, stage.apply(x, params[name]), changed)
            x = changed
        return x
