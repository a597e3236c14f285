"""Deblurring with a known point-spread function and a little noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from restora.degradations.blur.filtering import filter_per_sample, normalised, pixel_grid
from restora.degradations.blur.motion_blur import MotionBlur
from restora.degradations.parameters import as_level, as_range
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, at_random
from restora.registry import register

Blur = Literal["gaussian", "motion", "disc"]


@register("benchmark", "deblur")
@dataclass(frozen=True, kw_only=True)
class Deblur(Benchmark):
    """`y = k * x + n` with mirrored borders; classical methods are given the kernel k.

    `width` in pixels is the standard deviation of a Gaussian, the length of a straight motion (its `angle`
    in degrees is drawn per photo from the range), or the radius of a defocus disc. `sigma` is that of the
    noise, on the 8-bit scale; its map is the condition of networks that take one.
    """

    task: ClassVar[str] = "deblur"
    severity: ClassVar[str | None] = "width"

    blur: Blur = "gaussian"
    width: float | Sequence[float]
    angle: float | Sequence[float] = (0.0, 180.0)
    sigma: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        as_range("benchmark.width", self.width, least=0)
        as_range("benchmark.angle", self.angle)
        as_level("benchmark.sigma", self.sigma)
        if self.blur not in get_args(Blur):
            raise ValueError(f"benchmark.blur is one of {', '.join(get_args(Blur))}, got {self.blur!r}")

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:  # noqa: ARG002
        width = at_random(self.seed, index, *as_range("benchmark.width", self.width, least=0))
        angle = at_random(self.seed + 1, index, *as_range("benchmark.angle", self.angle))
        kernel = self.kernel(width, angle)  # (1,k,k)
        _, channels, rows, columns = clean.shape
        noise = np.random.default_rng((self.seed, index)).normal(
            0, self.sigma / 255, (rows, columns, channels)
        )
        blurred = filter_per_sample(clean, kernel) + torch.from_numpy(noise).permute(2, 0, 1).float()
        return Observation(
            name=self.names[index],
            degraded=blurred,
            clean=clean,
            baseline=blurred,
            condition=torch.full((1, 1, rows, columns), self.sigma / 255),
            sigma=self.sigma,
            kernel=kernel[0].double().numpy(),
            facts={"width": width} | ({"angle": angle} if self.blur == "motion" else {}),
        )

    def kernel(self, width: float, angle: float) -> Tensor:
        """The point-spread function, (1,k,k), k odd; one pixel where the width is 0."""
        if width == 0:
            return torch.ones(1, 1, 1)
        if self.blur == "motion":
            blur = MotionBlur(length=width, angle=angle)
            return blur.kernels({"length": torch.tensor([width]), "angle": torch.tensor([angle])})
        if self.blur == "disc":
            return _disc(max(width, 0.1))  # a smaller one is between the samples of its pixel
        rows, columns = pixel_grid(int(np.ceil(4 * width)), torch.device("cpu"))
        return normalised(torch.exp(-(rows.square() + columns.square()) / (2 * width**2)))


def _disc(radius: float, parts: int = 8) -> Tensor:
    """The share of each pixel that lies within `radius` of the centre, by `parts`^2 samples, (1,k,k)."""
    reach = int(np.ceil(radius))
    side = 2 * reach + 1
    at = (torch.arange(side * parts) + 0.5) / parts - side / 2
    inside = (at[:, None].square() + at[None].square() <= radius**2).float()
    return normalised(torch.nn.functional.avg_pool2d(inside[None], parts))
