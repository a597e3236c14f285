"""Values of run records, which may be missing or invalid: lookup, checks and text."""

import functools
import math
from typing import Any

from restora.files import json_text

SURROUNDINGS = (
    *("run_dir", "resume", "retry_failed", "output_dir", "data_dir", "threads", "plugins", "sweep"),
    *("data.store_dir", "data.workers", "leakage", "logger"),
)
"""Keys, with all keys below them, that determine where and how a run is computed, but not its result."""


@functools.lru_cache(maxsize=4096)  # all runs of a sweep have the same keys
def surrounds(key: str) -> bool:
    """Whether a setting is one of `SURROUNDINGS`."""
    return any(key == name or key.startswith(f"{name}.") for name in SURROUNDINGS)


def lookup(value: Any, *path: str) -> Any:
    """value[path[0]][path[1]]…; None if there is no such entry."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def finite(value: Any) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"network.depth": 17, …}; lists are values."""
    if not isinstance(config, dict):
        return {prefix: config}
    settings: dict[str, Any] = {}
    for key, value in config.items():
        settings |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return settings


def as_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json_text(value, indent=None)
