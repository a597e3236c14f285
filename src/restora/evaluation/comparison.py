"""Comparing results that `restora evaluate` wrote earlier, photo by photo, and seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from restora.evaluation.results import Result, read_seeds, same_benchmark, same_photos
from restora.evaluation.statistics import (
    Difference,
    Ranked,
    common_photos,
    holm,
    leaderboard,
    paired_difference,
)
from restora.evaluation.tables import SHARED, difference_table, few_photos, titled, verdict
from restora.files import write_json
from restora.metrics.registry import METRICS
from restora.words import counted

Pair = tuple[str, str]


def compare(folders: Sequence[str], output: Path | None, console: Console) -> None:
    """Prints the ranking and its significance; writes comparison.json to `output`, if given.

    A folder of result folders holds the seeds of one method. Raises ValueError when the results were not made
    on the same benchmark.
    """
    if len(folders) < 2:
        raise ValueError("compare needs at least two result folders: compare=DIR_A,DIR_B")
    methods = read_methods(folders)
    results = [result for seeds in methods.values() for result in seeds]
    differs = same_benchmark(results)
    if differs is not None:
        raise ValueError(f"the results were not made on the same benchmark: {differs}")
    if (differs := same_photos(results)) is not None:
        raise ValueError(f"the results are not of the same photos, degraded alike: {differs}")
    scores = {name: [result.scores() for result in seeds] for name, seeds in methods.items()}
    lines = leaderboard(scores)
    runs = [run for seeds in scores.values() for run in seeds]
    shared = common_photos(runs)
    console.print(_leaderboard_table(lines, methods, len(shared)))
    if len(shared) < max(map(len, runs)):
        console.print(
            f"compared only on what all results share: {counted(len(shared), 'photo')}", markup=False
        )
    if any(line.shared for line in lines):
        console.print(SHARED, markup=False)
    if too_few := few_photos(scores):
        console.print(too_few, markup=False)
    stored: dict[str, Any] = {"leaderboard": [_plain(line) for line in lines], "pairs": []}
    pairs = {
        (first, second): differences_of(methods[first], methods[second])
        for first, second in combinations(methods, 2)
    }
    if len(pairs) == 1:
        for (first, second), differences in pairs.items():
            console.print(difference_table(first, second, differences))
    for (first, second), differences in corrected(pairs).items():
        stored["pairs"].append(
            {"first": first, "second": second}
            | {m: _as_json(m, d, pairs[first, second][m], first, second) for m, d in differences.items()}
        )
    if output is not None:
        write_json(output / "comparison.json", stored)
        console.print(f"figures: {output / 'comparison.json'}", markup=False)


def read_methods(folders: Sequence[str]) -> dict[str, list[Result]]:
    """Seeds by method; named as in their summaries, or after their folders where those names repeat."""
    seeds = [read_seeds(folder) for folder in folders]
    names = [results[0].name for results in seeds]
    if len(set(names)) < len(names):
        names = [Path(folder).name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"compare lists the same folder twice: {', '.join(names)}")
    return dict(zip(names, seeds, strict=True))


def differences_of(first: Sequence[Result], second: Sequence[Result]) -> dict[str, Difference]:
    """The paired difference of every metric that both have for some photo."""
    found = {}
    for metric in METRICS:
        sides = [[result.scores(metric) for result in side] for side in (first, second)]
        if all(scores for side in sides for scores in side):
            found[metric] = paired_difference(*sides)
    return found


def corrected(pairs: Mapping[Pair, Mapping[str, Difference]]) -> dict[Pair, dict[str, Difference]]:
    """The differences with p over photos after Holm's correction for all pairs that have the metric."""
    found: dict[Pair, dict[str, Difference]] = {pair: {} for pair in pairs}
    for metric in METRICS:
        having = [pair for pair in pairs if metric in pairs[pair]]
        adjusted = holm([pairs[pair][metric].p_photos for pair in having])
        for pair, p in zip(having, adjusted, strict=True):
            found[pair][metric] = replace(pairs[pair][metric], p_photos=p)
    return found


def _leaderboard_table(lines: Sequence[Ranked], methods: Mapping[str, Sequence[Result]], count: int) -> Group:
    table = Table()
    for heading in ("rank", "method", "PSNR dB", "95 % CI", "seeds"):
        table.add_column(heading, justify="left" if heading == "method" else "right", overflow="fold")
    for line in lines:
        interval = "-" if count == 1 else f"{line.score.low:.2f}–{line.score.high:.2f}"
        seeds = str(len(methods[line.name]))
        table.add_row(line.label, escape(line.name), f"{line.score.mean:.3f}", interval, seeds)
    return titled(f"{counted(count, 'photo')}, PSNR in dB", table)


def _plain(line: Ranked) -> dict[str, Any]:
    interval = [line.score.low, line.score.high]
    return {
        "rank": line.rank,
        "shared": line.shared,
        "tied_with": list(line.tied_with),
        "name": line.name,
        "psnr": line.score.mean,
        "interval": interval,
    }


def _as_json(metric: str, item: Difference, alone: Difference, first: str, second: str) -> dict[str, Any]:
    """`item` after the correction for several pairs, on which the verdict rests; `alone` without it."""
    return {
        "difference": item.interval.mean,
        "interval": [item.interval.low, item.interval.high],
        "p_photos": alone.p_photos,
        "p_corrected": item.p_photos,
        "p_seeds": item.p_seeds,
        "photos": item.photos,
        "seeds": list(item.seeds),
        "wins": item.wins,
        "verdict": verdict(item, METRICS[metric].higher_is_better, first, second),
    }
