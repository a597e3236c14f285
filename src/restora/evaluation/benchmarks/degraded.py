"""Any degradation of training, and inpainting, whose protocol keeps the known pixels."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from restora.degradations.base import Degradation
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation
from restora.image import resize
from restora.keyed import KeyedGenerator, image_key
from restora.registry import register


@register("benchmark", "degraded")
@dataclass(frozen=True, kw_only=True)
class Degraded(Benchmark):
    """Photos degraded as in training, each keyed by its name: the same for every method and machine."""

    task: ClassVar[str] = "restore"

    degradation: Degradation
    configuration: dict[str, Any] | None = None
    """The configuration of the degradation, to be written beside the figures."""

    @property
    def classical_task(self) -> str:
        return "super_resolution" if self.degradation.scale > 1 else self.task

    def describe(self) -> dict[str, Any]:
        values = super().describe()
        values["degradation"] = values.pop("configuration") or type(self.degradation).__name__
        return values

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        name, scale = self.names[index], self.degradation.scale
        if intake.scale not in (None, scale):
            raise ValueError(
                f"the network enlarges {intake.scale} times and the degradation reduces {scale} times: "
                "they must agree"
            )
        clean = self.cut_to_multiple(clean, scale)
        height, width = clean.shape[-2:]
        keys = torch.tensor([image_key(name)], dtype=torch.int64)
        image, condition = self.degradation(clean, KeyedGenerator(keys))
        baseline = image if scale == 1 else resize(image, height, width)
        return Observation(
            name=name, degraded=image, clean=clean, baseline=baseline, condition=condition, scale=scale
        )


@register("benchmark", "inpaint")
@dataclass(frozen=True, kw_only=True)
class Inpaint(Degraded):
    """Lost pixels are to be filled in; known pixels are copied into the output before it is scored."""

    task: ClassVar[str] = "inpaint"

    keep_known: bool = True

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        observation = super().degrade(clean, index, intake)
        mask = observation.condition
        if mask is None or mask.shape[1] != 1 or not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"benchmark=inpaint needs a degradation whose condition is a mask, and "
                f"{type(self.degradation).__name__} gives none: set "
                "degradation@benchmark.degradation=inpaint_brush"
            )
        lost = 1 - mask.mean().item()
        return Observation(
            name=observation.name,
            degraded=observation.degraded,
            clean=clean,
            baseline=observation.baseline,
            condition=mask,
            mask=mask,
            facts={"lost": lost},
        )

    def complete(self, output: Tensor, observation: Observation) -> Tensor:
        if self.keep_known and observation.mask is not None:
            output = torch.where(observation.mask > 0, observation.degraded, output)
        return output
