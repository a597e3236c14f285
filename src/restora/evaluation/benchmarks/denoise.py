"""Denoising by the papers' convention: white Gaussian noise, not clipped, from a fixed seed per photo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from restora.degradations.parameters import as_level
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, at_random
from restora.image import round_to_8_bits
from restora.registry import register


@register("benchmark", "denoise")
@dataclass(frozen=True, kw_only=True)
class Denoise(Benchmark):
    """`y = x + n`, `n ~ N(0, (sigma/255)^2)` per pixel and channel; its map goes to networks that take one.

    The noise is that of the papers' code: NumPy's legacy generator, seeded with `seed + seed_stride *
    place` before the photo at that place of the sorted list, drawn over (H,W,C). `sigma` is on the 8-bit
    scale; from a range [low, high] each photo gets one level. `conditioned_sigma` is the level that networks
    get instead of the true one, to measure the cost of a wrong estimate.
    """

    task: ClassVar[str] = "denoise"
    severity: ClassVar[str | None] = "sigma"

    sigma: float | Sequence[float]
    seed: int = 0
    seed_stride: int = 0
    clip_input: bool = False
    round_input: bool = False
    conditioned_sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        as_level("benchmark.sigma", self.sigma)
        if self.conditioned_sigma is not None:
            as_level("benchmark.conditioned_sigma", self.conditioned_sigma)

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:  # noqa: ARG002
        low, high = as_level("benchmark.sigma", self.sigma)
        sigma = at_random(self.seed, index, low, high)
        _, channels, height, width = clean.shape
        random = np.random.RandomState(self.seed + self.seed_stride * index)
        noise = random.normal(0, sigma / 255, (height, width, channels))
        noisy = (clean.double() + torch.from_numpy(noise).permute(2, 0, 1)).float()
        if self.clip_input:
            noisy = noisy.clamp(0, 1)
        if self.round_input:
            noisy = round_to_8_bits(noisy)
        level = sigma if self.conditioned_sigma is None else self.conditioned_sigma
        return Observation(
            name=self.names[index],
            degraded=noisy,
            clean=clean,
            baseline=noisy,
            condition=torch.full((1, 1, height, width), level / 255),
            sigma=sigma,
            facts={"sigma": sigma},
        )
