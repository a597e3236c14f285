"""Results as tables for a terminal of 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from restora.evaluation.results import CUT_SHORT, Result
from restora.evaluation.severity import UNITS, Point
from restora.evaluation.statistics import Difference, Ranked, Scores, leaderboard, least_p
from restora.metrics.registry import METRICS
from restora.words import counted

SHARED = (
    "= not significantly different from at least one other method (paired bootstrap interval and Wilcoxon's "
    "test with Holm's correction)"
)
_TITLES = {"psnr": "PSNR dB", "psnr_b": "PSNR-B", "ms_ssim": "MS-SSIM", "delta_e": "ΔE00"}
_BESIDE = 3
"""Metrics in the table with the rank and the interval of PSNR."""
_DECIMALS = {"psnr": 2, "psnr_b": 2, "delta_e": 2, "niqe": 2, "brisque": 1}


def results_table(results: Sequence[Result], title: str) -> Group:
    """Methods by rank where there are several.

    Means over photos, the 95 % interval of PSNR, and the input's figures.
    """
    lines = ranking(results)
    ranked = {line.name: line for line in lines}
    metrics = [name for name in METRICS if any(name in result.metrics for result in results)]
    order = sorted(results, key=lambda result: _place(result.name, lines))
    table = Table()
    if len(results) > 1:
        table.add_column("", justify="right")
    table.add_column("method", overflow="fold", min_width=12)
    table.add_column("PSNR dB", justify="right")
    table.add_column("95 % CI", justify="right", style="dim")
    for metric in metrics[1:_BESIDE]:
        table.add_column(_TITLES.get(metric, metric.upper()), justify="right")
    table.add_column("s/photo", justify="right")
    before = _figures(results[0], metrics[:_BESIDE], "input_")
    table.add_row(*[""] * (len(results) > 1), "input", *before, "", style="dim")
    for result in order:
        seconds = sum(row["seconds"] for row in result.rows) / len(result.rows)
        label = [ranked[result.name].label if result.name in ranked else "-"] if len(results) > 1 else []
        figures = _figures(result, metrics[:_BESIDE], "")
        table.add_row(*label, escape(result.name), *figures, f"{seconds:.2f}")
    made = titled(f"{title}: {counted(len(results[0].rows), 'photo')}", table)
    if metrics[_BESIDE:]:
        made.renderables.append(_further(order, metrics[_BESIDE:]))
    return made


def _further(results: Sequence[Result], metrics: Sequence[str]) -> Table:
    """The metrics for which 80 columns have no room beside PSNR."""
    table = Table()
    table.add_column("method", overflow="fold", min_width=12)
    for metric in metrics:
        table.add_column(_TITLES.get(metric, metric.upper()), justify="right")
    table.add_row("input", *_figures(results[0], metrics, "input_"), style="dim")
    for result in results:
        table.add_row(escape(result.name), *_figures(result, metrics, ""))
    return table


def few_photos(methods: Mapping[str, Sequence[Scores]]) -> str | None:
    """A line where no difference of the methods can be significant; None where one can."""
    least = least_p(methods)
    if least.p < 0.05:
        return None
    if least.unequal == 0:
        return "all methods have the same scores"
    equal = "" if least.unequal == least.photos else " with unequal scores"
    are = "is" if least.unequal == 1 else "are"
    corrected = "" if least.pairs == 1 else f", with Holm's correction for {least.pairs} pairs,"
    return (
        f"{counted(least.unequal, 'photo')}{equal} {are} too few for a significant difference: "
        f"Wilcoxon's test{corrected} gives p >= {least.p:.3f}"
    )


def ranking(results: Sequence[Result]) -> list[Ranked]:
    """The leaderboard by PSNR of several results; empty where there is one, or a score that is not finite."""
    if len(results) < 2:
        return []
    try:
        return leaderboard(_scores(results))
    except ValueError:
        return []


def _scores(results: Sequence[Result]) -> dict[str, list[Scores]]:
    return {result.name: [result.scores()] for result in results}


def leaderboard_lines(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The leaderboard as plain values."""
    return [
        {
            "rank": line.rank,
            "shared": line.shared,
            "tied_with": list(line.tied_with),
            "name": line.name,
            "psnr": line.score.mean,
            "interval": [line.score.low, line.score.high],
        }
        for line in ranking(results)
    ]


def notes_of_each(results: Sequence[Result], at: str = "") -> list[str]:
    """Lines on methods whose computation ended early on any photo, and on the effects of options.

    `at` is the severity in words.
    """
    lines = [
        f"{result.name}{at and f' at {at}'}: {len(rows)} of {counted(len(result.rows), 'photo')} cut short, "
        f"{rows[0]['name']}: {rows[0][CUT_SHORT]}"
        for result in results
        if (rows := result.cut_short)
    ]
    for result in results:
        if result.effect is not None:
            slower = f"takes {result.effect['times_slower']:.1f} times as long"
            change = result.effect["difference"].get("psnr")
            gain = "" if change is None else _gain(change)
            lines.append(f"{', '.join(result.effect['options'])}{at and f' at {at}'}: {gain}{slower}")
    return lines


def missing_notes(results: Sequence[Result]) -> list[str]:
    """A line for each metric that was not computed, with the reason."""
    reasons = {metric: reason for result in results for metric, reason in result.not_computed.items()}
    return [f"{metric} was not computed: {reason}" for metric, reason in reasons.items()]


def notes(results: Sequence[Result]) -> list[str]:
    """Notes below the table: computations cut short, effects of options, missing metrics, shared ranks."""
    lines = [*notes_of_each(results), *missing_notes(results)]
    ranked = ranking(results)
    if not ranked and len(results) > 1:
        lines.append("not ranked: a PSNR is infinite, as a restored photo equals its original")
    if any(line.shared for line in ranked):
        lines.append(SHARED)
        if too_few := few_photos(_scores(results)):
            lines.append(too_few)
    return lines


def _gain(change: Mapping[str, Any]) -> str:
    low, high = change["interval"]
    return f"{change['mean']:+.3f} dB [{low:+.3f}, {high:+.3f}], "


def difference_table(first: str, second: str, differences: dict[str, Difference]) -> Group:
    """Two methods, metric by metric: the paired difference, its interval, the tests."""
    table = Table()
    for heading in ("metric", "diff.", "95 % CI", "p photos", "p seeds", "higher"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    table.add_column("verdict", overflow="fold")
    for metric, item in differences.items():
        digits = 3 if metric.startswith("psnr") else 5
        ends = f"[{item.interval.low:+.{digits}f}, {item.interval.high:+.{digits}f}]"
        interval = "-" if item.photos == 1 else escape(ends)
        table.add_row(
            _TITLES.get(metric, metric.upper()),
            f"{item.interval.mean:+.{digits}f}",
            interval,
            _p(item.p_photos),
            "-" if item.p_seeds is None else _p(item.p_seeds),
            f"{item.wins}/{item.photos}",
            escape(verdict(item, METRICS[metric].higher_is_better, first, second))
            if item.decided
            else "not significant",
        )
    return titled(f"{first} minus {second}", table)


def verdict(item: Difference, higher_is_better: bool, first: str, second: str) -> str:
    """The better method, or that the difference is not significant."""
    if not item.decided:
        return "cannot tell"
    return first if (item.interval.mean > 0) == higher_is_better else second


def severity_table(points: Sequence[Point], severity: str) -> Group:
    """Severities down, methods across; a figure outside the trained range stands in brackets."""
    methods = list(dict.fromkeys(point.method for point in points))
    table = Table()
    table.add_column(severity, justify="right")
    for method in methods:
        table.add_column(escape(method), justify="right", overflow="fold")
    for value in sorted({point.severity for point in points}):
        row = {point.method: point for point in points if point.severity == value}
        cells = [_cell(row[method]) if method in row else "-" for method in methods]
        table.add_row(f"{value:g}", *cells)
    outside = any(point.trained is False for point in points)
    below = "(…): outside the range that the network was trained on" if outside else ""
    return titled(f"PSNR in dB by {UNITS[severity]}", table, below)


def titled(title: str, table: Table, below: str = "") -> Group:
    """The table between lines of text, which rich would otherwise break at the width of the table."""
    lines = (Text(title, style="table.title"), table, Text(below, style="table.caption"))
    return Group(*lines[: 3 if below else 2])


def _cell(point: Point) -> str:
    return f"({point.mean:.2f})" if point.trained is False else f"{point.mean:.2f}"


def _figures(result: Result, metrics: Sequence[str], prefix: str) -> list[str]:
    interval = result.summary()["interval"].get("psnr") if not prefix else None
    cells = []
    for metric in metrics:
        value = result.mean(prefix + metric)
        cells.append("-" if value is None else f"{value:.{_DECIMALS.get(metric, 4)}f}")
        if metric == "psnr":
            cells.append(
                "" if interval is None or len(result.rows) < 2 else f"{interval[0]:.1f}–{interval[1]:.1f}"
            )
    return cells


def _place(name: str, lines: Sequence[Ranked]) -> int:
    return next((place for place, line in enumerate(lines) if line.name == name), len(lines))


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
