"""What is known of a network's training: the severities that it saw."""

from collections.abc import Mapping
from typing import Any

from restora.registry import find, part_of


def trained_range(degradation: Any, severity: str) -> tuple[float, float] | None:
    """The range of a benchmark's severity that a network was trained on, read off its degradation; None if
    unknown.

    `severity` is sigma (noise), quality (JPEG) or width (Gaussian blur); the first stage that has one counts.
    """
    classes = {
        "sigma": ("gaussian_noise", "sigma"),
        "quality": ("jpeg", "quality"),
        "width": ("gaussian_blur", "sigma"),
    }
    if severity not in classes:
        return None
    return _find_range(degradation, *classes[severity])


def _find_range(node: Any, name: str, argument: str) -> tuple[float, float] | None:
    if isinstance(node, Mapping):
        value = node.get(argument)
        if value is not None and part_of(node, "degradation") is find("degradation", name):
            low, high = (value, value) if isinstance(value, int | float) else value
            return float(low), float(high)
        node = list(node.values())
    if isinstance(node, list | tuple):
        found = (_find_range(part, name, argument) for part in node)
        return next((item for item in found if item is not None), None)
    return None
