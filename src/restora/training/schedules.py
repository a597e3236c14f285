"""Learning-rate schedules: functions from the share of the training done to a factor.

The share is in [0,1]; the factor multiplies the base learning rate.

Such a schedule suits runs of any length, in steps or in minutes, and has no state to save.
"""

import math
from collections.abc import Sequence

from restora.registry import register


@register("schedule", "constant")
class Constant:
    """The base rate throughout."""

    def __call__(self, progress: float) -> float:
        return 1.0


@register("schedule", "cosine")
class Cosine:
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter, "SGDR", ICLR 2017, one cycle).

    `hold` is the share of the training at the base rate before the decay (Restormer: 92,000 of 300,000
    steps); `warmup` is the share before that, in which the rate rises linearly from 0.01 of it.
    """

    def __init__(self, *, final: float = 0.0, warmup: float = 0.0, hold: float = 0.0) -> None:
        if not 0 <= warmup <= hold + warmup < 1:
            raise ValueError(f"family.schedule.warmup + hold must be in [0, 1), got {warmup} + {hold}")
        if not 0 <= final <= 1:
            raise ValueError(f"family.schedule.final must be a factor in [0, 1], got {final}")
        self.final, self.warmup, self.hold = final, warmup, hold

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return 0.01 + 0.99 * progress / self.warmup
        start = self.warmup + self.hold
        share = min(max(progress - start, 0.0) / (1 - start), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


@register("schedule", "linear")
class Linear:
    """The base rate for the first `hold` of the training, then linearly down to 0 (CycleGAN: 0.5)."""

    def __init__(self, *, hold: float = 0.5) -> None:
        if not 0 <= hold < 1:
            raise ValueError(f"family.schedule.hold must be in [0, 1), got {hold}")
        self.hold = hold

    def __call__(self, progress: float) -> float:
        return min(1.0, (1 - progress) / (1 - self.hold))


@register("schedule", "multi_step")
class MultiStep:
    """The base rate times `gamma` for every milestone (a share of the training) that is passed."""

    def __init__(self, *, milestones: Sequence[float], gamma: float = 0.5) -> None:
        if any(not 0 < milestone < 1 for milestone in milestones):
            raise ValueError(
                f"family.schedule.milestones must be shares of the training in (0, 1), got {list(milestones)}"
            )
        if not 0 < gamma <= 1:
            raise ValueError(f"family.schedule.gamma must be a factor in (0, 1], got {gamma}")
        self.milestones, self.gamma = sorted(milestones), gamma

    def __call__(self, progress: float) -> float:
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


@register("schedule", "exponential")
class Exponential:
    """Exponential decay from 1 to `final` (DnCNN: 1e-1 to 1e-4 over 50 epochs)."""

    def __init__(self, *, final: float) -> None:
        if not 0 < final <= 1:
            raise ValueError(f"family.schedule.final must be a factor in (0, 1], got {final}")
        self.final = final

    def __call__(self, progress: float) -> float:
        return self.final**progress
