"""Helpers that degradations share: ranges of parameters, per-sample views, constants on a device."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

Range: TypeAlias = float | Sequence[float]
"""One number, or (low, high) to draw from uniformly per sample."""


def as_range(
    name: str, value: Range, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """`value` as (low, high), which must lie within [least, most]. Raises ValueError."""
    bounds = (value,) * 2 if isinstance(value, int | float) else value
    if (
        not isinstance(bounds, Sequence)
        or len(bounds) != 2
        or not all(isinstance(bound, int | float) for bound in bounds)
        or not least <= bounds[0] <= bounds[1] <= most
    ):
        raise ValueError(
            f"{name} must be a number or a range [low, high] within [{least:g}, {most:g}], got {value}"
        )
    return float(bounds[0]), float(bounds[1])


def as_whole_range(name: str, value: Range, *, least: int, most: int) -> tuple[int, int]:
    """`as_range` of whole numbers."""
    low, high = as_range(name, value, least=least, most=most)
    if low % 1 or high % 1:
        raise ValueError(f"{name} must be a whole number or a range of whole numbers, got {value}")
    return int(low), int(high)


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
