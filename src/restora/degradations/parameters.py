"""Helpers that degradations share: ranges of parameters, per-sample views, constants on a device."""

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from restora.image import check_visible

Range: TypeAlias = float | Sequence[float]
"""One number, or (low, high) to draw from uniformly per sample."""


def as_number(name: str, value: float, *, least: float = -math.inf, most: float = math.inf) -> float:
    """`value`, which must be finite and lie within [least, most]. Raises ValueError."""
    if not isinstance(value, Real) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{name} must be a number{_within(least, most)}, got {value!r}")
    return float(value)


def as_probability(name: str, value: float) -> float:
    """`value`, which must lie within [0, 1]. Raises ValueError."""
    return as_number(name, value, least=0, most=1)


def as_range(
    name: str, value: Range, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """`value` as (low, high), finite numbers within [least, most]. Raises ValueError."""
    bounds: Any = (value,) * 2 if isinstance(value, Real) else value
    if (
        not isinstance(bounds, Sequence)
        or len(bounds) != 2
        or not all(isinstance(bound, Real) and math.isfinite(bound) for bound in bounds)
        or not least <= bounds[0] <= bounds[1] <= most
    ):
        raise ValueError(
            f"{name} must be a number or a range [low, high]{_within(least, most)}, got {value!r}"
        )
    return float(bounds[0]), float(bounds[1])


def as_level(name: str, value: Range) -> tuple[float, float]:
    """`as_range` of levels on the 8-bit scale. Raises ValueError for those of the [0,1] scale.

    Those are below half a step of the 8-bit scale, which nobody sees.
    """
    low, high = as_range(name, value, least=0)
    check_visible(name, high)
    return low, high


def as_whole_range(name: str, value: Range, *, least: int, most: float = math.inf) -> tuple[int, int]:
    """`as_range` of whole numbers."""
    low, high = as_range(name, value, least=least, most=most)
    if low % 1 or high % 1:
        raise ValueError(f"{name} must be a whole number or a range of whole numbers, got {value}")
    return int(low), int(high)


def as_odd_range(name: str, value: Range) -> tuple[int, int]:
    """`as_range` of odd numbers, as the side of a window with a middle pixel is."""
    low, high = as_whole_range(name, value, least=1)
    if low % 2 == 0 or high % 2 == 0:
        raise ValueError(f"{name} must be an odd number or a range between odd numbers, got {value}")
    return low, high


def _within(least: float, most: float) -> str:
    if most < math.inf:
        return f" within [{least:g}, {most:g}]"
    return f" of at least {least:g}" if least > -math.inf else ""


def require_colour(name: str, shape: Sequence[int]) -> None:
    """Raises ValueError for photos (B,C,H,W) that have no three channels."""
    if shape[1] != 3:
        raise ValueError(f"{name} needs photos of 3 channels, got {shape[1]}: set data.channels=rgb")


def per_sample(values: Tensor) -> Tensor:
    """(B,) -> (B,1,1,1), to broadcast over photos."""
    return values.view(-1, 1, 1, 1)


def host_knows(values: Tensor) -> bool:
    """Whether the host can read drawn values without waiting for a device, as on a CPU."""
    return values.device.type == "cpu"


@lru_cache(maxsize=256)
def constant(values: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of (nested tuples of) numbers, copied to the device once.

    A copy per call would wait for the device.
    """
    return torch.tensor(values, dtype=dtype).to(device)
