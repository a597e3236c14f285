"""`restora report`: compares the runs below folders, in the terminal and as one self-contained page.

Reads run folders only (run.json, metrics.csv, images/): no W&B, no checkpoint, no network. An unreadable run
is named and left out; a failed one is listed with its error.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restora.apps.parser import Parser
from restora.files import check_writable, write_whole
from restora.reporting.baselines import Baseline, compute, stored
from restora.reporting.leaderboard import Row, leaderboard, legend, verdict
from restora.reporting.runs import Group, Problem, Run, group_runs, read_runs
from restora.reporting.table import check_data_file, table_rows, write_table
from restora.reporting.terminal import shown, terminal_table
from restora.words import in_short

if TYPE_CHECKING:
    from rich.console import Console

GROUPS_IN_TERMINAL = 6
UNFINISHED_IN_TERMINAL = 5
"""Of a comparison, in each state; more would push its table out of sight."""


def parser() -> argparse.ArgumentParser:
    """The command line of `restora report`."""
    made = Parser(
        prog="restora report",
        description="Compare all runs below the folders: leaderboard in the terminal, and a page with "
        "curves, costs and photos that opens in any browser without a network.",
    )
    made.add_argument(
        "outputs", metavar="OUTPUTS_DIR", nargs="+", help="folder of runs, of a sweep, or one run"
    )
    made.add_argument(
        "--output",
        metavar="FILE",
        help="the page (default: OUTPUTS_DIR/report.html; of several folders, report.html here)",
    )
    made.add_argument(
        "--data",
        metavar="FILE",
        help="also a table for other programs (.csv, .parquet): a row for each held-out photo of each run",
    )
    made.add_argument(
        "--baselines",
        action="store_true",
        help="also run the classical filters on the photos of denoising runs (kept in baselines.json)",
    )
    made.add_argument(
        "--methods",
        metavar="NAME,NAME",
        help="with --baselines: run these instead, classical filters (bm3d, …) and methods fitted to each "
        "photo (zs_n2n, dip)",
    )
    return made


def main(argv: Sequence[str]) -> int:
    """0 if the page was written. Raises ValueError if there are no runs."""
    from rich.console import Console

    from restora.reporting.page import page

    options = parser().parse_args(argv)
    names = _names(options.methods, baselines=options.baselines)
    data = None if options.data is None else Path(options.data)
    if data is not None:
        check_data_file(data)
    folders = [Path(name) for name in options.outputs]
    runs, problems = _read(folders)
    several = len(folders) > 1
    root = Path(os.path.commonpath(map(os.path.abspath, folders))) if several else folders[0]
    usual = Path("report.html") if several else root / "report.html"
    output = usual if options.output is None else Path(options.output)
    check_writable(output, setting="--output")
    console = Console(highlight=False)
    groups = group_runs(runs, root)
    baselines = {id(group): _baselines(group, folders[0], console, names) for group in groups}
    rows = {id(group): leaderboard(group, baselines[id(group)]) for group in groups}
    _print_groups(groups, rows, console)
    for problem in problems:
        console.print(
            f"left out: {problem.folder}: {problem.reason}", markup=False, style="yellow", soft_wrap=True
        )
    write_whole(output, page(folders, [(group, rows[id(group)]) for group in groups], problems))
    console.print(f"page: {output}", markup=False, soft_wrap=True)
    if data is not None:
        compared = [(group, baselines[id(group)]) for group in groups]
        write_table(data, list(table_rows(compared, root)))
        console.print(f"table: {data}", markup=False, soft_wrap=True)
    return 0


def _read(folders: Sequence[Path]) -> tuple[list[Run], list[Problem]]:
    """All runs below the folders, each once; of several folders with their absolute paths.

    Raises ValueError for a folder that is missing or has no runs.
    """
    runs: dict[Path, Run] = {}
    problems: dict[Path, Problem] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
        found, unreadable = read_runs(folder if len(folders) == 1 else Path(os.path.abspath(folder)))
        if not found and not unreadable:
            raise ValueError(f"there are no run folders (with a run.json) below {folder}: train first")
        for run in found:
            runs.setdefault(run.folder.resolve(), run)
        for problem in unreadable:
            problems.setdefault(problem.folder.resolve(), problem)
    return list(runs.values()), list(problems.values())


def _names(given: str | None, *, baselines: bool) -> list[str]:
    """The baselines to run; none without `--baselines`. Raises ValueError for an unknown name."""
    if given is None and not baselines:
        return []
    from restora.evaluation.classical import BASELINES
    from restora.evaluation.methods import filter_of

    if given is None:
        return list(BASELINES)
    if not baselines:
        raise ValueError("--methods says which baselines to run: add --baselines")
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        filter_of(name)
    return names


def _baselines(group: Group, root: Path, console: "Console", names: Sequence[str]) -> list[Baseline]:
    """The rows of classical methods in a group: computed now if there are `names`, else the stored ones."""
    if not names or not group.scored:
        return stored(group, root)
    from rich.progress import Progress

    from restora.evaluation.methods import filter_of

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("baselines", total=None)

        def show(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"baseline: {name}", total=total, completed=done)

        try:
            return compute(group, root, {name: filter_of(name) for name in names}, show)
        except ValueError as error:
            console.print(f"no baselines for {group.title}: {error}", markup=False)
            return []


_RESUMABLE = {"stopped": "stopped", "dead": "dead (its process ended without a word)"}


def _print_groups(
    groups: Sequence[Group], leaderboards: Mapping[int, Sequence[Row]], console: "Console"
) -> None:
    for group in groups[:GROUPS_IN_TERMINAL]:
        rows = leaderboards[id(group)]
        console.print(terminal_table(group.title, rows, console.width))
        if len(shown(rows)) < len(rows):
            console.print(f"{len(rows) - len(shown(rows))} more rows on the page")
        for sentence in filter(None, [legend(rows), *verdict(rows)]):
            console.print(sentence, markup=False)
        _print_unfinished(group, console)
        console.print()
    if len(groups) > GROUPS_IN_TERMINAL:
        more = len(groups) - GROUPS_IN_TERMINAL
        console.print(f"and {more} more comparison{'s' * (more > 1)} on the page")


def _print_unfinished(group: Group, console: "Console") -> None:
    """Why runs failed, and how to resume those that were stopped; of many in one state the first."""
    for state in ("failed", *_RESUMABLE):
        runs = [run for run in group.runs if run.status == state]
        for run in runs[:UNFINISHED_IN_TERMINAL]:
            if state == "failed":
                why = in_short(run.text("error"))
                console.print(f"failed: {run.label}: {why}", markup=False, style="red", soft_wrap=True)
            else:
                line = f"{_RESUMABLE[state]}: {run.label}: {run.resuming}"
                console.print(line, markup=False, soft_wrap=True)
        if (more := len(runs) - UNFINISHED_IN_TERMINAL) > 0:
            console.print(f"{state}: {more} more, which the page lists")
