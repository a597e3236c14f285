"""The metric that selects checkpoints and runs: a metric of validation, and whether more or less is better.

The best checkpoint, the run record, the leaderboard, `export --best` and sweeps all read the same two values
from `monitor:` of the configuration. Note: photos that a report shows never take part in a selection.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from restora import words

Direction = Literal["max", "min"]
LOWER_IS_BETTER = ("loss", *words.LOWER_IS_BETTER)
"""Metrics of which less is better, without their stage."""


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """`metric` as validation logs it, such as val/psnr; `direction` is max if more is better."""

    metric: str = "val/psnr"
    direction: Direction = "max"

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise ValueError(f"monitor.direction must be max or min, got {self.direction!r}")
        if not self.metric.startswith("val/") or self.metric == "val/":
            raise ValueError(
                "monitor.metric must be a metric that validation logs, such as val/psnr or val/ssim, "
                f"got {self.metric!r}"
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Monitor":
        """The monitor of a run's configuration; validation's PSNR if an older run does not set one."""
        node = config.get("monitor")
        if not isinstance(node, Mapping):
            return cls()
        metric = str(node.get("metric"))
        return cls(metric=metric, direction=node.get("direction") or direction_of(metric))

    @property
    def name(self) -> str:
        """The metric without its stage: psnr."""
        return self.metric.removeprefix("val/")

    def better(self, value: float, than: float | None) -> bool:
        """Whether `value` is better than `than`; any value is better than None, and a number than NaN."""
        if than is None:
            return True
        if math.isnan(value) or math.isnan(than):
            return not math.isnan(value)
        return value > than if self.direction == "max" else value < than

    def in_words(self, value: float) -> str:
        """The figure with its unit, if it has one: 28.31 dB, 0.8421."""
        text = words.figure(self.name, value)
        return text if text.endswith("dB") else f"{self.name} {text}"


def direction_of(metric: str) -> Direction:
    """Whether more or less of a metric, such as val/loss, is better."""
    return "min" if metric.removeprefix("val/") in LOWER_IS_BETTER else "max"
