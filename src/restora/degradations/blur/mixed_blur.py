"""One of several kinds of blur per sample, at the cost of one."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur
from restora.degradations.compose.composition import choose, named, probabilities
from restora.degradations.parameters import host_knows
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "mixed_blur")
class MixedBlur(KernelBlur):
    """Draws the kind of blur per sample with relative `weights`, like `OneOf` but on the kernels.

    All kinds are drawn for all samples, which costs little, and the photos are convolved once.
    """

    def __init__(
        self, *, stages: Mapping[str, KernelBlur], weights: Mapping[str, float] | None = None
    ) -> None:
        self.stages = named(stages, KernelBlur)
        self.weights = probabilities(self.stages, weights)
        self.radius = max(stage.radius for stage in self.stages.values())

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        stages = {name: stage.sample(shape, generator.fork(name)) for name, stage in self.stages.items()}
        return {"choice": choose(self.weights, generator), "stages": stages}

    def kernels(self, params: Params) -> Tensor:
        choice = params["choice"].view(-1, 1, 1)
        out: Tensor | None = None
        for index, (name, stage) in enumerate(self.stages.items()):
            if out is not None and host_knows(choice) and not (choice == index).any():
                continue  # on a device the host would have to wait for this check
            own = F.pad(stage.kernels(params["stages"][name]), (self.radius - stage.radius,) * 4)
            out = own if out is None else torch.where(choice == index, own, out)
        assert out is not None
        return out
