"""A degradation of which black-and-white photos stay black and white."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Severity, Shape
from restora.degradations.parameters import per_sample, require_colour
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "keep_grey")
class KeepGrey(Degradation):
    """The stage, followed by the luma of BT.601 in all channels where the clean photo is grey (R = G = B).

    A scan or a photo from a camera's monochrome mode has the same noise in all channels, whereas a stage
    of its own would add coloured noise. The condition is the stage's.
    """

    needs_colour = True

    def __init__(self, *, stage: Degradation) -> None:
        self.stage, self.scale = stage, stage.scale
        self.undamaged, self.fill = stage.undamaged, stage.fill

    @property
    def parts(self) -> tuple[Degradation, ...]:
        return (self.stage,)

    @property
    def severity(self) -> Severity | None:
        return self.stage.severity

    @property
    def severities(self) -> dict[str, Severity]:
        return self.stage.severities

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        require_colour("keep_grey", shape)
        return {"stage": self.stage.sample(shape, generator.fork("stage"))}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        from kornia.color import rgb_to_grayscale

        degraded = self.stage.degrade(clean, params["stage"])
        grey = (clean == clean[:, :1]).flatten(1).all(1)  # (B,)
        return torch.where(per_sample(grey), rgb_to_grayscale(degraded).expand_as(degraded), degraded)

    def condition(self, clean: Tensor, params: Params) -> Tensor | None:
        return self.stage.condition(clean, params["stage"])
