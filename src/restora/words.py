"""Scores in words, the same in the terminal, the report and the model card."""

import math
from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = ("delta_e", "lpips", "dists", "niqe", "brisque")
"""Metrics of which less is better."""
_UNITS = {"psnr": (2, " dB"), "psnr_b": (2, " dB"), "delta_e": (2, "")}
"""Decimals and unit; all other metrics have four decimals and none."""


def figure(metric: str, value: float) -> str:
    """28.314 -> 28.31 dB for PSNR, 0.81234 -> 0.8123 for SSIM."""
    decimals, unit = _UNITS.get(metric, (4, ""))
    return f"{value:.{decimals}f}{unit}"


def shown(name: str) -> str:
    """A file's name for a terminal; characters that are not printable become their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def three_digits(value: float) -> str:
    """A measured figure from 0 on: 0.01234 -> 0.0123, 12.34 -> 12.3, 1234.5 -> 1234."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def counted(number: int, noun: str) -> str:
    """1 photo, 2 photos."""
    return f"{number} {noun}{'s' * (number != 1)}"


def for_videos(frames: int) -> str:
    """Why a photo is no input of a network that takes several frames."""
    return f"the model restores videos, each frame from {frames} of them, and a photo has no other frames"


def in_short(reason: str, longest: int = 200) -> str:
    """The first line of an error's message, shortened; a message without text is the name of the error."""
    line = reason.strip().partition("\n")[0].strip().removesuffix(":")
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


NOISY_REFERENCE = "noisy"
"""Entry `reference` of a run whose figures compare with another noisy version of each photo."""
AGAINST_NOISY = "against another noisy version of each photo, not against clean photos"


def worse_than_input(scores: Mapping[str, Any], reference: Any = None) -> str:
    """The metrics in which restored photos are no better than the degraded ones, in words; empty if none.

    Also empty if the `reference` is noisy: such figures do not tell.

    `scores` holds means by the metric's name, and the means of the degraded photos by `input_` and the name.
    Means that are equal in the digits shown count as equal.
    """
    if reference == NOISY_REFERENCE:
        return ""
    notes = [_compared(name, value, scores[f"input_{name}"]) for name, value in _pairs(scores).items()]
    for phrase in ("not a number", "worse than its input", "no better than its input"):
        listed = [what for kind, what in notes if kind == phrase]
        if listed:
            return f"{phrase} in {' and in '.join(listed)}"
    return ""


def _pairs(scores: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that were measured on both the restored and the degraded photos."""
    return {
        name: float(value)
        for name, value in scores.items()
        if isinstance(value, int | float) and isinstance(scores.get(f"input_{name}"), int | float)
    }


def _compared(metric: str, value: float, before: float) -> tuple[str, str]:
    """A phrase for the metric, empty if it is better than the input, and the figures."""
    name = metric.upper()
    if math.isnan(value):
        return "not a number", name
    shown, start = figure(metric, value), figure(metric, before)
    if shown == start:
        return "no better than its input", f"{name} ({shown})"
    is_worse = value > before if metric in LOWER_IS_BETTER else value < before
    return ("worse than its input" if is_worse else ""), f"{name} ({shown}, the degraded photos {start})"
