"""The base of objectives that learn from noisy photos alone: their requirements on network and noise.

They assume noise of zero mean given the photo, independent from pixel to pixel, for some also of known level.
For a synthetic degradation this is checked; for photos that are already noisy the user is responsible.

Legend: B samples, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor

from restora.objectives.base import Objective, Setting, Step

WITHOUT = "learn from clean photos (objective=supervised)"


class WithoutClean(Objective):
    """An objective that uses noisy photos only."""

    needs_clean = False
    takes_target = False
    needs_independence = True
    """Whether the noise has to be independent from pixel to pixel, with the photo as its mean."""

    def check(self, setting: Setting) -> None:
        super().check(setting)
        network, name = setting.network, type(self).__name__
        if network.scale != 1 or network.in_channels != network.out_channels:
            raise ValueError(
                f"objective {name} compares restored photos with their noisy selves, and the network makes "
                f"{network.in_channels} channels into {network.out_channels} at ×{network.scale}: choose a "
                "denoising network"
            )
        if self.needs_independence and setting.noise is not None:
            missing = []
            if "mean" not in setting.noise.centres:
                missing.append("its mean is not the photo")
            if not setting.noise.independent:
                missing.append("it is not independent from pixel to pixel")
            if missing:
                raise ValueError(
                    f"objective {name} cannot learn from {setting.noise.name} ({' and '.join(missing)}): "
                    f"choose a noise such as degradation=gaussian_noise or poisson_noise, or {WITHOUT}"
                )


class OfKnownLevel(WithoutClean):
    """An objective for white Gaussian noise of known level.

    `sigma` is on the 8-bit scale; null takes the level map that the degradation gives as condition.
    """

    def __init__(self, *, sigma: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        if sigma is not None and not 1 <= sigma <= 255:
            raise ValueError(
                f"{self._where}.sigma must be a level from 1 to 255, on the 8-bit scale, or null, got "
                f"{sigma}{_on_8_bits(sigma)}"
            )
        self.sigma = sigma

    @property
    def _where(self) -> str:
        return f"objective.{type(self).__name__.lower()}"

    def check(self, setting: Setting) -> None:
        super().check(setting)
        name, noise, key = type(self).__name__, setting.noise, f"{self._where}.sigma"
        if noise is not None and not noise.gaussian:
            raise ValueError(
                f"objective {name} is for white Gaussian noise of known level, not {noise.name}: set "
                "degradation=gaussian_noise, or another objective such as neighbor2neighbor"
            )
        if noise is not None and self.sigma is not None:
            raise ValueError(
                f"objective {name} is given the level by {noise.name}: set {key}=null, as a level is "
                "for photos that come noisy"
            )
        if noise is None and self.sigma is None:
            raise ValueError(
                f"objective {name} has to know the noise of these photos: set {key}, the standard deviation "
                "on the 8-bit scale, or choose objective=neighbor2neighbor, which does not"
            )

    def level(self, step: Step) -> Tensor:
        """The standard deviation on the [0,1] scale, (B,1,H,W) or (1,1,1,1)."""
        if self.sigma is not None:
            return torch.full((1, 1, 1, 1), self.sigma / 255, device=step.degraded.device)
        assert step.condition is not None  # ensured by `check`
        return step.condition[:, :1]


def _on_8_bits(sigma: float) -> str:
    """A level that may be meant on the [0,1] scale, on the 8-bit scale."""
    return f": {sigma} of [0,1] is {sigma * 255:g}" if 0 < sigma < 1 else ""
