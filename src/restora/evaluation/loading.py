"""The severities that a network was trained on."""

from typing import Any

from restora.degradations.base import Degradation
from restora.registry import build


def trained_range(degradation: Any, severity: str) -> tuple[float, float] | None:
    """The range of a benchmark's severity that a network was trained on, by its degradation's description.

    None where that is unknown.

    `severity` is sigma (noise), quality (JPEG), width (Gaussian blur) or scale.
    """
    try:
        made = build(degradation, "degradation")
    except ValueError:  # a part of it is not installed
        return None
    found = made.severities.get(severity) if isinstance(made, Degradation) else None
    return None if found is None else (found.low, found.high)
