"""The one place where restored photos become figures.

Training's validation and test, `evaluate` and the report's classical filters all call it.

Enters: restored photos, the degraded ones at their size, and the clean ones, float (B,C,H,W) on the [0,1]
scale. Leaves: a row per photo, each metric of the restored photo under its name and of the degraded one under
`input_` and its name, always rounded to `DECIMALS`, so that figures stored in two places are equal.

Legend: B photos, C channels, H height, W width.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from restora.evaluation.protocol import Protocol
from restora.image import full_precision
from restora.metrics.registry import METRICS, Metric, unavailable
from restora.monitor import Monitor, direction_of

DECIMALS = 6
LOSS = "loss"
"""The objectives' loss on validation photos: not a metric, but a checkpoint can be chosen by it."""
Figures = dict[str, float | None]


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each figure over the photos that have it, by the figure's name.

    The input's is left out where it is infinite because some of the photos, not all, are not degraded.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "name" and value is not None:
                columns.setdefault(key, []).append(value)
    return {
        key: math.fsum(values) / len(values)
        for key, values in columns.items()
        if not key.startswith("input_") or len(set(map(math.isinf, values))) == 1
    }


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A protocol and the metrics that are computed by it."""

    protocol: Protocol
    metrics: tuple[str, ...] = ("psnr", "ssim")

    def __post_init__(self) -> None:
        for name in self.metrics:
            if self.protocol.color == "y" and not METRICS[name].of_luminance:
                raise ValueError(
                    f"{name} is for whole photos, and color=y scores their luminance alone: set color=rgb, "
                    f"or leave {name} out"
                )

    def rows(
        self, restored: Tensor, degraded: Tensor, clean: Tensor | None, *, eight_bit: bool = True
    ) -> list[Figures]:
        """The figures of each photo; without clean photos, only those of metrics that need none.

        `eight_bit` is False for an output that is not a photo to be saved. A figure is None where the photo
        is too small for the metric. Computed in full precision, also in a training's autocast.
        """
        with full_precision(restored.device):
            return self._rows(restored, degraded, clean, eight_bit)

    def _rows(
        self, restored: Tensor, degraded: Tensor, clean: Tensor | None, eight_bit: bool
    ) -> list[Figures]:
        rounded = self.protocol.round_output and eight_bit
        pair = {"": self.protocol.planes(restored, rounded=rounded)}
        pair["input_"] = self.protocol.planes(degraded, rounded=rounded)
        if clean is not None:
            clean = self.protocol.planes(clean, rounded=False)
        rows: list[Figures] = [{} for _ in restored]
        for prefix, photos in pair.items():
            for name in self.metrics if clean is not None else without_reference():
                values = _figures(METRICS[name], photos, clean, self.protocol.border)
                for row, value in zip(rows, values, strict=True):
                    row[prefix + name] = value
        return rows


def without_reference() -> tuple[str, ...]:
    """The metrics that need no clean photo and can be computed here."""
    return tuple(
        name for name, metric in METRICS.items() if not metric.needs_reference and unavailable(name) is None
    )


def check_monitored(monitor: Monitor, *, has_clean: bool = True) -> None:
    """Raises ValueError for a metric that validation cannot measure here, and for a direction to its worse.

    The loss can always be measured.
    """
    metric = monitor.name
    if metric in (LOSS, *METRICS) and monitor.direction != direction_of(metric):
        raise ValueError(
            f"monitor.direction={monitor.direction} would choose the checkpoint with the worst val/{metric}: "
            f"set monitor.direction={direction_of(metric)}"
        )
    if metric == LOSS:
        return
    if metric not in METRICS:
        raise ValueError(
            f"monitor.metric must be val/ and one of {', '.join([*METRICS, LOSS])}, got val/{metric}"
        )
    if not has_clean and METRICS[metric].needs_reference:
        raise ValueError(
            f"monitor.metric=val/{metric} needs clean photos, and these data have none: set "
            "monitor.metric=val/loss, or val/niqe"
        )
    if reason := unavailable(metric):
        raise ValueError(f"monitor.metric=val/{metric} cannot be computed here: {reason}")


def _figures(metric: Metric, photos: Tensor, clean: Tensor | None, border: int) -> list[float | None]:
    if min(photos.shape[-2:]) < metric.smallest_side:
        return [None] * len(photos)
    cut = {"border": border} if metric.of_blocks else {}
    values: list[Any] = metric.compute(photos, photos if clean is None else clean, **cut).tolist()
    return [
        None if math.isnan(value) and not metric.needs_reference else round(value, DECIMALS)
        for value in values
    ]
