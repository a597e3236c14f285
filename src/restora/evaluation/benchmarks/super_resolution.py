"""Super-resolution as the field evaluates it: MATLAB-style bicubic reduction to 8 bits, border excluded.

Legend: H W of the photo cut to a multiple of the scale s, h = H/s, w = W/s.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, Planes, check_single
from restora.image import luminance, resize, rgb_to_ycbcr, round_to_8_bits, ycbcr_to_rgb
from restora.registry import register


@register("benchmark", "super_resolution")
@dataclass(frozen=True, kw_only=True)
class SuperResolution(Benchmark):
    """The photo, cut to a multiple of `scale`, is reduced by MATLAB's bicubic and rounded to 8 bits.

    A network of that scale is given the reduced photo. A network of scale 1 (SRCNN, VDSR) is given the
    photo enlarged again by bicubic interpolation, rounded to 8 bits. A network of one channel is given Y of
    BT.601, not rounded. With color=y its output is scored directly; with color=rgb its chroma is that of the
    bicubic enlargement. The border that is not scored is `scale` pixels wide unless `border` is set.
    """

    task: ClassVar[str] = "super_resolution"
    severity: ClassVar[str | None] = "scale"

    scale: int

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"benchmark.scale is a whole number >= 1, got {self.scale}")
        super().__post_init__()

    @property
    def default_border(self) -> int:
        return self.scale

    def planes(self, intake: Intake) -> Planes:
        check_single(intake)
        if self.color in ("rgb", "y") and intake.channels in (None, 1, 3):
            return "rgb"  # reduced in colour also for a luminance network, as in its published figures
        return super().planes(intake)

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        if intake.scale not in (None, 1, self.scale):
            raise ValueError(
                f"the network enlarges {intake.scale} times and the benchmark asks for {self.scale}: set "
                f"benchmark.scale={intake.scale} or take a network of scale {self.scale}"
            )
        clean = self.cut_to_multiple(clean, self.scale)
        height, width = clean.shape[-2:]
        small = resize(clean, height // self.scale, width // self.scale)  # (1,C,h,w)
        small = round_to_8_bits(small.clamp(0, 1))
        enlarged = round_to_8_bits(resize(small, height, width).clamp(0, 1))  # (1,C,H,W)
        given = enlarged if intake.scale == 1 else small
        observation = Observation(
            name=self.names[index], degraded=given, clean=clean, baseline=enlarged, scale=self.scale
        )
        if intake.channels == 1 and clean.shape[1] == 3:
            chroma = rgb_to_ycbcr(enlarged)[:, 1:] if self.color == "rgb" else None
            in_y = self.color == "y"
            observation = replace(observation, degraded=luminance(given), chroma=chroma, eight_bit=not in_y)
        return observation

    def complete(self, output: Tensor, observation: Observation) -> Tensor:
        if observation.chroma is not None and output.shape[1] == 1:
            output = ycbcr_to_rgb(torch.cat((output, observation.chroma), dim=1))
        return output
