"""Runs the plan of `restora evaluate`: shows the progress, then writes the files and the table."""

import os
import re
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from restora.apps.evaluate_plan import Entry, Plan
from restora.data.progress import Lines
from restora.evaluation.benchmarks.base import Benchmark
from restora.evaluation.leakage import find_leaks, fingerprints_of_files
from restora.evaluation.methods import FittedMethod, Method, NetworkMethod
from restora.evaluation.results import SUMMARY, Result, Row, read_result
from restora.evaluation.run import evaluate
from restora.evaluation.severity import at_severity, curve, write_plot, write_table
from restora.evaluation.statistics import paired_difference
from restora.evaluation.tables import (
    leaderboard_lines,
    missing_notes,
    notes,
    notes_of_each,
    results_table,
    severity_table,
)
from restora.files import write_json
from restora.photos.names import file_stem
from restora.photos.reading import list_photos
from restora.words import counted


def run(plan: Plan, console: Console) -> None:
    """Scores every entry of the plan, writes the figures and prints them."""
    for note in plan.notes:
        console.print(note, markup=False)
    leakage = _check_leakage(plan, console)
    if not plan.entries:
        return
    if plan.severities:
        _run_severities(plan, console)
        return
    results = _score(plan, plan.benchmark, plan.output, leakage=leakage)
    write_results(results, plan.output)
    console.print(results_table(results, plan.benchmark.title))
    for line in notes(results):
        console.print(line, markup=False)
    console.print(f"figures: {plan.output}", markup=False)


def _check_leakage(plan: Plan, console: Console) -> dict[str, object] | None:
    """Prints which test photos are among the training photos, if the user named a folder of those."""
    if plan.training_photos is None:
        return None
    folder = Path(plan.training_photos).expanduser()
    files = list_photos(folder)
    if not files:
        raise ValueError(f"training_photos={plan.training_photos}: there are no photos")
    name = plan.benchmark.describe()["testset"]
    tested = {name: fingerprints_of_files(plan.benchmark.photos)}
    report = find_leaks(fingerprints_of_files(files), tested)
    for line in report.lines():
        console.print(line, markup=False)
    return report.as_dict()


def write_results(results: list[Result], output: Path) -> None:
    """Writes the files of the first method into `output`, with the ranks where there are several."""
    results[0].write(output)
    if len(results) == 1:
        return
    summary = results[0].summary() | {
        "methods": {result.name: result.summary() for result in results},
        "leaderboard": leaderboard_lines(results),
    }
    write_json(output / SUMMARY, summary)


def _run_severities(plan: Plan, console: Console) -> None:
    benchmarks = {value: at_severity(plan.benchmark, value) for value in plan.severities}
    results: dict[str, dict[float, Result]] = {entry.method.name: {} for entry in plan.entries}
    severity, remarks = plan.benchmark.severity, list[str]()
    assert severity is not None
    for value, benchmark in benchmarks.items():
        folder = plan.output / f"{severity}={value:g}"
        scored = _score(plan, benchmark, folder, f"{severity} {value:g}")
        write_results(scored, folder)
        remarks += notes_of_each(scored, f"{severity} {value:g}")
        for result in scored:
            results[result.name][value] = result
    trained = {entry.method.name: entry.trained for entry in plan.entries}
    points = curve(results, trained)
    write_table(points, plan.output / "severity.csv")
    title = f"{plan.benchmark_name}: {counted(len(plan.benchmark.photos), 'photo')}"
    write_plot(points, trained, plan.output / "severity.html", severity=severity, title=title)
    console.print(severity_table(points, severity))
    last = [by_value[plan.severities[-1]] for by_value in results.values()]
    for line in [*remarks, *missing_notes(last)]:
        console.print(line, markup=False)
    console.print(f"figures: {plan.output} (severity.csv, severity.html)", markup=False)


def _score(
    plan: Plan, benchmark: Benchmark, output: Path, at: str = "", leakage: dict[str, object] | None = None
) -> list[Result]:
    """The results of all entries on one benchmark, with a progress bar each on a terminal.

    Those of several methods are written one by one, so that an error in a later one does not lose them.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[psnr]}", markup=False),
    )
    results = []
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for entry in plan.entries:
            folder = output if len(plan.entries) == 1 else output / _folder(entry.method.name)
            images = folder / "images" if plan.images else None
            result = _with_bar(
                progress, entry.method, benchmark, plan, images, f"{entry.method.name} {at}".strip()
            )
            result.method = entry.description
            if entry.plain is not None:
                plain = _with_bar(progress, entry.plain, benchmark, plan, None, f"{entry.method.name}, plain")
                result.effect = effect(entry, result, plain)
            result.leakage = leakage
            _remove_pictures(folder, set() if images is None else {row["name"] for row in result.rows})
            if len(plan.entries) > 1:
                result.write(folder)
            results.append(result)
    if len(plan.entries) > 1:
        _remove_pictures(output, set())
    return results


def _remove_pictures(folder: Path, kept: set[str]) -> None:
    """Removes the pictures of an earlier evaluation, which do not belong to the new figures.

    Only files that the earlier figures name.
    """
    try:
        names = {row["name"] for row in read_result(folder).rows}
    except (ValueError, OSError):  # no earlier evaluation
        return
    kept = {file_stem(name) for name in kept}
    for stem in {file_stem(name) for name in names} - kept:
        (folder / "images" / f"{stem}.png").unlink(missing_ok=True)
    if not kept:
        with suppress(OSError):  # none, or with other files in it
            (folder / "images").rmdir()


def _with_bar(
    progress: Progress, method: Method, benchmark: Benchmark, plan: Plan, images: Path | None, label: str
) -> Result:
    total = len(benchmark.photos)
    task = progress.add_task(label, total=total, psnr="")
    lines = None if progress.console.is_terminal else Lines(progress.console, label, total)
    seen: list[float] = []

    def step(row: Row) -> None:
        seen.append(row["psnr"])
        progress.update(task, advance=1, psnr=f"{sum(seen) / len(seen):.2f} dB")
        if lines is not None:
            lines(1)

    processes = plan.processes
    if processes is None:
        processes = 1 if isinstance(method, NetworkMethod | FittedMethod) else os.cpu_count() or 1
    if isinstance(method, FittedMethod) and processes == 1:
        method.on_step = lambda at: progress.update(task, description=f"{label} {at.step}/{at.of}")
    return evaluate(
        method, benchmark, metrics=plan.metrics, processes=processes, images=images, on_photo=step
    )


def effect(entry: Entry, result: Result, plain: Result) -> dict[str, object]:
    """The effect of the user's options: paired differences in PSNR and SSIM, and the ratio of times."""
    values: dict[str, object] = {"options": entry.effects, "plain": {}, "difference": {}}
    for metric in ("psnr", "ssim"):
        values["plain"] |= {metric: plain.mean(metric)}  # type: ignore[operator]
        try:
            difference = paired_difference([result.scores(metric)], [plain.scores(metric)])
        except ValueError:  # infinite scores
            continue
        interval = difference.interval
        values["difference"] |= {  # type: ignore[operator]
            metric: {
                "mean": interval.mean,
                "interval": [interval.low, interval.high],
                "p": difference.p_photos,
            }
        }
    seconds = [sum(row["seconds"] for row in item.rows) for item in (result, plain)]
    return values | {"times_slower": seconds[0] / max(seconds[1], 1e-9)}


def _folder(name: str) -> str:
    return file_stem(re.sub(r"[^\w.+-]+", "_", name))
