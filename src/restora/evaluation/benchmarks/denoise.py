"""Denoising by the papers' convention: white Gaussian noise, not clipped, from a fixed seed per photo.

A network that takes T frames gets each photo in motion, as in training (`data.frames`): the middle frame is
the noisy photo that all other methods get, and the others have noise of their own. So its figures stand
beside those of networks that see the photo alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from restora.data.motion import CameraMotion
from restora.degradations.parameters import as_level
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, at_random
from restora.image import round_to_8_bits
from restora.keyed import KeyedGenerator, image_key
from restora.registry import register


@register("benchmark", "denoise")
@dataclass(frozen=True, kw_only=True)
class Denoise(Benchmark):
    """`y = x + n`, `n ~ N(0, (sigma/255)^2)` per pixel and channel; its map goes to networks that take one.

    The noise is that of the papers' code: NumPy's legacy generator, seeded with `seed + seed_stride *
    place` before the photo at that place of the sorted list, drawn over (H,W,C). `sigma` is on the 8-bit
    scale; from a range [low, high] each photo gets one level. `conditioned_sigma` is the level that networks
    get instead of the true one, to measure the cost of a wrong estimate. `motion` is that of photos before
    networks of several frames (`CameraMotion`); the key of a photo's motion is its name.
    """

    task: ClassVar[str] = "denoise"
    severity: ClassVar[str | None] = "sigma"

    sigma: float | Sequence[float]
    seed: int = 0
    seed_stride: int = 0
    clip_input: bool = False
    round_input: bool = False
    conditioned_sigma: float | None = None
    motion: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        as_level("benchmark.sigma", self.sigma)
        if self.conditioned_sigma is not None:
            as_level("benchmark.conditioned_sigma", self.conditioned_sigma)
        CameraMotion.of(self.motion, key="benchmark.motion")

    @property
    def moves(self) -> bool:
        return True

    def describe(self) -> dict[str, Any]:
        values = super().describe()
        if values["motion"] is None:
            del values["motion"]  # older results have no such entry
        return values

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        low, high = as_level("benchmark.sigma", self.sigma)
        sigma = at_random(self.seed, index, low, high)
        _, _, height, width = clean.shape
        random = np.random.RandomState(self.seed + self.seed_stride * index)
        noisy = self._noisy(clean, sigma, random)
        degraded = noisy
        if intake.frames > 1:
            degraded = self._clip(clean, noisy, sigma, random, self.names[index], intake.frames)
        level = sigma if self.conditioned_sigma is None else self.conditioned_sigma
        return Observation(
            name=self.names[index],
            degraded=degraded,
            clean=clean,
            baseline=noisy,
            condition=torch.full((1, 1, height, width), level / 255),
            sigma=sigma,
            facts={"sigma": sigma},
        )

    def _noisy(self, clean: Tensor, sigma: float, random: np.random.RandomState) -> Tensor:
        """(1,C,H,W) with the next noise of the generator."""
        _, channels, height, width = clean.shape
        noise = random.normal(0, sigma / 255, (height, width, channels))
        noisy = (clean.double() + torch.from_numpy(noise).permute(2, 0, 1)).float()
        if self.clip_input:
            noisy = noisy.clamp(0, 1)
        return round_to_8_bits(noisy) if self.round_input else noisy

    def _clip(
        self,
        clean: Tensor,
        noisy: Tensor,
        sigma: float,
        random: np.random.RandomState,
        name: str,
        frames: int,
    ) -> Tensor:
        """(1,T·C,H,W), frames of the moving photo; the middle one is `noisy`."""
        motion = CameraMotion.of(self.motion, key="benchmark.motion")
        key = KeyedGenerator(torch.tensor([image_key(name)]))
        moved = motion.frames(clean, motion.sample(frames, key.fork("motion")))
        parts = [
            noisy if frame == frames // 2 else self._noisy(moved[:, frame], sigma, random)
            for frame in range(frames)
        ]
        return torch.cat(parts, dim=1)
