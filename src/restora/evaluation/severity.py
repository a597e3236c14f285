"""Severity curves: a metric against noise level, JPEG quality, blur width or scale."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from restora.evaluation.benchmarks.base import Benchmark
from restora.evaluation.results import Result
from restora.evaluation.statistics import Interval, Scores, bootstrap_mean
from restora.files import table_text, write_whole

UNITS = {
    "sigma": "noise σ (8-bit scale)",
    "quality": "JPEG quality",
    "width": "blur width (pixels)",
    "scale": "scale",
}
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


@dataclass(frozen=True)
class Point:
    """One method at one severity.

    Mean and interval over photos, and whether it was trained there (None: unknown).
    """

    method: str
    severity: float
    mean: float
    low: float
    high: float
    trained: bool | None


def at_severity(benchmark: Benchmark, value: float) -> Benchmark:
    """The benchmark with another severity. Raises ValueError for a task that has none."""
    if benchmark.severity is None:
        raise ValueError(
            f"severities: a benchmark of the task {benchmark.task} has no severity to vary: use "
            "benchmark=denoise (sigma), jpeg (quality), deblur (width) or super_resolution (scale)"
        )
    whole = benchmark.severity in ("quality", "scale")
    if whole and value % 1:
        raise ValueError(f"severities: a {benchmark.severity} is a whole number, got {value:g}")
    return replace(benchmark, **{benchmark.severity: round(value) if whole else value})  # type: ignore[arg-type]


def curve(
    results: Mapping[str, Mapping[float, Result]],
    trained: Mapping[str, tuple[float, float] | None],
    metric: str = "psnr",
) -> list[Point]:
    """Points of all methods from their results by severity; the input, as a method, comes first."""
    points = []
    first = next(iter(results.values()))
    for severity, result in first.items():
        given = _mean(result.scores(f"input_{metric}"))
        points.append(Point("input", severity, given.mean, given.low, given.high, None))
    for name, by_severity in results.items():
        known = trained.get(name)
        for severity, result in by_severity.items():
            interval = _mean(result.scores(metric))
            inside = None if known is None else known[0] <= severity <= known[1]
            points.append(Point(name, severity, interval.mean, interval.low, interval.high, inside))
    return points


def _mean(scores: Scores) -> Interval:
    """The mean with its interval; infinite where a photo is its original, as without noise."""
    values = list(scores.values())
    return bootstrap_mean(values) if all(map(math.isfinite, values)) else Interval(*[math.inf] * 3)


def write_table(points: Sequence[Point], path: Path) -> None:
    """One line per method and severity."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("method", "severity", "mean", "low", "high", "inside_trained_range"))
    for point in points:
        inside = "" if point.trained is None else str(point.trained).lower()
        figures = (f"{value:.4f}" for value in (point.mean, point.low, point.high))
        writer.writerow((table_text(point.method), f"{point.severity:g}", *figures, inside))
    write_whole(path, table.getvalue())


def write_plot(
    points: Sequence[Point],
    trained: Mapping[str, tuple[float, float] | None],
    path: Path,
    *,
    severity: str,
    metric: str = "psnr",
    title: str = "",
) -> None:
    """A page without outside requests: one line per method with its interval; trained ranges are shaded."""
    import plotly.graph_objects as go

    figure = go.Figure()
    methods = list(dict.fromkeys(point.method for point in points))
    for place, method in enumerate(methods):
        colour = "#7f7f7f" if method == "input" else _COLOURS[place % len(_COLOURS)]
        own = sorted((point for point in points if point.method == method), key=lambda point: point.severity)
        figure.add_scatter(
            x=[point.severity for point in own],
            y=[point.mean if math.isfinite(point.mean) else None for point in own],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [_distance(point.high, point.mean) for point in own],
                "arrayminus": [_distance(point.mean, point.low) for point in own],
            },
            name=method,
            mode="lines+markers",
            line={"color": colour, "dash": "dot" if method == "input" else "solid"},
        )
        known = trained.get(method)
        if known is not None:
            margin = 0.0 if known[1] > known[0] else 0.25
            figure.add_vrect(
                x0=known[0] - margin, x1=known[1] + margin, fillcolor=colour, opacity=0.12, line_width=0,
                annotation_text=f"{method} trained here", annotation_position="bottom left",
            )  # fmt: skip
    unit = "PSNR (dB)" if metric == "psnr" else metric.upper().replace("_", "-")
    figure.update_layout(
        title=title, xaxis_title=UNITS.get(severity, severity), yaxis_title=unit, template="plotly_white"
    )
    write_whole(path, figure.to_html(include_plotlyjs="inline"))


def _distance(high: float, low: float) -> float | None:
    return high - low if math.isfinite(high - low) else None
