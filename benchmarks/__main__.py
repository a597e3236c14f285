"""Everything that is promised about speed, measured in one go: `make bench`.

    python benchmarks [--quick] [--only crops.py,tiling.py] [--with "to_bm3d.py=--train FOLDER --test FOLDER"]

Runs the benchmarks one after another, each in a process of its own, and ends with one table of what was
measured, what the target is and whether it is met; the same goes to outputs/bench.md. What cannot be measured
here (no GPU, a peer that is not installed) has a row that says so.
"""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich import box
from rich.table import Table
from timing import WIDTH, Row, console, machine, parser

HERE = Path(__file__).resolve().parent
BENCHMARKS: dict[str, list[str]] = {
    "crops.py": [],
    "second_order.py": [],
    "degradations.py": [],
    "networks.py": [],
    "tiling.py": [],
    "engines.py": [],
    "startup.py": [],
    "sweep_jobs.py": [],
    "host.py": [],
    "busy.py": [],
    "training_gpu.py": [],
    "to_bm3d.py": [],
}
"""Scripts with their default arguments. Each takes `--quick` and `--rows FILE`."""


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", default=",".join(BENCHMARKS), help="scripts to run, with commas between")
    made.add_argument("--with", dest="more", action="append", default=[], help="SCRIPT=its arguments")
    made.add_argument("--output", type=Path, default=Path("outputs/bench.md"))
    options = made.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(BENCHMARKS):
        made.error(f"--only is of {', '.join(BENCHMARKS)}; got {', '.join(sorted(unknown))}")
    more = {script: shlex.split(words) for script, _, words in (text.partition("=") for text in options.more)}
    if unknown := set(more) - set(BENCHMARKS):
        made.error(f"--with is SCRIPT=ARGUMENTS of {', '.join(BENCHMARKS)}; got {', '.join(sorted(unknown))}")
    rows: list[tuple[str, Row]] = []
    for script in chosen:
        arguments = [*BENCHMARKS[script], *more.get(script, []), *(["--quick"] if options.quick else [])]
        rows += [(script, row) for row in run(script, arguments)]
    console().print(table(rows))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(markdown(rows, options.quick))
    console().print(str(options.output))


def run(script: str, arguments: list[str]) -> list[Row]:
    """Runs one benchmark, with its output on the terminal; returns its rows, or one row if it fails."""
    console().rule(shlex.join(["python", f"benchmarks/{script}", *arguments]), align="left")
    with tempfile.TemporaryDirectory() as folder:
        path, started = Path(folder) / "rows.json", time.monotonic()
        code = subprocess.run(
            [sys.executable, str(HERE / script), *arguments, "--rows", str(path)], check=False
        ).returncode
        console().print(f"  {time.monotonic() - started:.0f} s")
        if code or not path.exists():
            return [Row(script, f"failed with code {code}: see its output above")]
        return [Row(**row) for row in json.loads(path.read_text())]


def table(rows: list[tuple[str, Row]]) -> Table:
    """The table of results for a terminal."""
    made = Table(box=box.SIMPLE_HEAD, title="Speed", title_justify="left", pad_edge=False, width=WIDTH)
    for name in ("what", "measured", "target", "met"):
        made.add_column(name)
    for _, row in rows:
        made.add_row(row.what, row.measured, row.target, met(row))
    return made


def met(row: Row) -> str:
    return {True: "yes", False: "no", None: ""}[row.met]


def markdown(rows: list[tuple[str, Row]], quick: bool) -> str:
    """The table of results in Markdown, with the command of each row."""
    command = "python benchmarks --quick" if quick else "make bench"
    lines = [
        f"Measured by `{command}` on {time.strftime('%Y-%m-%d')}: {machine()}.",
        "",
        "| what | measured | target | met | by |",
        "|---|---|---|---|---|",
        *(
            f"| {row.what} | {row.measured} | {row.target} | {met(row)} | `benchmarks/{script}` |"
            for script, row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
