"""Minutes from nothing to a published figure on a CPU, as a leaderboard.

    python benchmarks/speed_run.py GOAL [KEY=VALUE ...] [--tried "what is new"] [--data-dir data]
    python benchmarks/speed_run.py --table

GOAL is bm3d, cbm3d or ffdnet. The recipe of `experiments/` is trained with the words that are added, in a
process of its own, and evaluated on the test set; a try is a line of `docs/speed_runs.csv` whether or not it
gets there. Its minutes are those of the whole process: the start of Python, decoding, training, saving.
Photos and test sets first: restora prepare data=free_photos testsets=bsd68,cbsd68
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from restora.files import read_json
from restora.zoo.references import PSNR

_KEPT = Path(__file__).parents[1] / "docs" / "speed_runs.csv"


@dataclass(frozen=True)
class Goal:
    """A recipe, its benchmark, and the method whose figure there is the goal."""

    experiment: str
    benchmark: str
    whose: str

    @property
    def psnr(self) -> float:
        """The goal in dB."""
        return PSNR[self.benchmark][self.whose]


GOALS = {
    "bm3d": Goal("zoo/half_minute", "bsd68_sigma25", "BM3D"),
    "cbm3d": Goal("speed_run/cbm3d", "cbsd68_sigma25", "CBM3D"),
    "ffdnet": Goal("speed_run/ffdnet", "cbsd68_sigma25", "FFDNet"),
}
_COLUMNS = (
    *("goal", "psnr", "minutes", "cpu_minutes", "threads", "steps", "tried", "words"),
    *("cpu", "torch", "commit", "date"),
)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("goal", choices=list(GOALS), nargs="?")
    made.add_argument("words", nargs="*", help="of restora train")
    made.add_argument("--tried", default="", help="what is new about it, for the table")
    made.add_argument("--data-dir", default=os.environ.get("RESTORA_DATA", "data"))
    made.add_argument("--kept", type=Path, default=_KEPT)
    made.add_argument("--table", action="store_true", help="the leaderboard alone")
    options = made.parse_intermixed_args()
    if options.goal is None and not options.table:
        made.error("GOAL is one of " + ", ".join(GOALS))
    if options.goal is not None:
        keep(attempt(options.goal, options.words, options.data_dir), options.tried, options.kept)
    for line in table(options.kept):
        print(line)


def attempt(goal: str, words: Sequence[str], data_dir: str) -> dict[str, str]:
    """Trains and evaluates; returns the line of the results."""
    aim = GOALS[goal]
    with tempfile.TemporaryDirectory() as folder:
        run, scores = Path(folder) / "run", Path(folder) / "scores"
        typed = [f"experiments={aim.experiment}", f"data_dir={data_dir}", f"hydra.run.dir={run}", *words]
        started, before = time.perf_counter(), os.times()
        _restora("train", *typed)
        spent, after = time.perf_counter() - started, os.times()
        cpu = sum(after[2:4]) - sum(before[2:4])  # of ended child processes
        measured = [f"benchmark={aim.benchmark}", f"data_dir={data_dir}", "metrics=psnr"]
        _restora("evaluate", f"checkpoint={run}", *measured, f"output={scores}")
        record, psnr = read_json(run / "run.json"), read_json(scores / "summary.json")["psnr"]
    return {
        "goal": goal,
        "psnr": f"{psnr:.3f}",
        "minutes": f"{spent / 60:.2f}",
        "cpu_minutes": f"{cpu / 60:.2f}",
        "threads": str(record["config"]["threads"] or os.cpu_count()),
        "steps": str(record["cost"]["steps"]),
        "words": " ".join(words),
        "cpu": record["machine"]["cpu"],
        "torch": record["versions"]["torch"],
        "commit": str(record["git"]["commit"])[:7],
        "date": record["finished"][:10],
    }


def keep(line: dict[str, str], tried: str, path: Path) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({**line, "tried": tried})


def table(path: Path) -> Iterator[str]:
    """The table in Markdown; for each goal the tries that reach it by minutes, then the others by PSNR.

    Figures are compared with two decimals, as published figures have.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    yield "| goal | minutes | CPU minutes | PSNR | what was tried | machine | commit, date |"
    yield "|---|---:|---:|---:|---|---|---|"
    for name, aim in GOALS.items():
        own = [line for line in lines if line["goal"] == name]
        there = [line for line in own if round(float(line["psnr"]), 2) >= aim.psnr]
        short = [line for line in own if line not in there]
        for line in sorted(there, key=lambda line: float(line["minutes"])):
            yield _row(line, f"{aim.whose}, {aim.psnr} dB", f"**{float(line['minutes']):.2f}**")
        for line in sorted(short, key=lambda line: -float(line["psnr"])):
            yield _row(line, f"{aim.whose}: missed", f"{float(line['minutes']):.2f}")


def _row(line: dict[str, str], goal: str, minutes: str) -> str:
    what = line["tried"] + (f": `{line['words']}`" if line["words"] else "")
    machine = f"{line['cpu']}, {line['threads']} threads"
    cells = (goal, minutes, line["cpu_minutes"], f"{float(line['psnr']):.2f}", what, machine)
    return f"| {' | '.join(cells)} | {line['commit']}, {line['date']} |"


def _restora(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "restora", *words], check=True)


if __name__ == "__main__":
    main()
