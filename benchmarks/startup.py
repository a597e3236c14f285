"""How long a person waits: `restora --help`, and from nothing to the end of the first training step.

    python benchmarks/startup.py [--rounds 5] [--quick]

Each in a process of its own, from its start to its end; the first training step is that of the quickstart's
DnCNN with the whole of a run around it (packing the sample photos, validation, test, the run folder), and
again with the photos packed. Files are in the page cache after the first round.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Row, Times, console, machine, parser, print_table, save_rows

HELP_TARGET, STEP_TARGET = 0.5, 15.0
FIRST_STEP = ["train", "experiments=quickstart/dncnn", "trainer.max_steps=1", "logger.mode=disabled"]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=5)
    options = made.parse_args()
    rounds = 2 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(["--help"], folder, Times())
        ways = {
            "restora --help": Times(),
            "first step, nothing packed": Times(),
            "first step, packed": Times(),
        }
        helped, stepped, again = ways.values()
        for number in range(rounds):
            _run(["--help"], folder, helped)
            _run(FIRST_STEP, folder / str(number), stepped)
            _run(FIRST_STEP, folder / str(number), again)
    rows = [
        [way, *(f"{t.median(c):.2f}" for c in ("wall", "processor")), f"{min(t.wall):.2f}-{max(t.wall):.2f}"]
        for way, t in ways.items()
    ]
    print_table(f"start-up, {machine()}", ["", "seconds", "processor", "least-most"], rows)
    waits = (("restora --help", helped, HELP_TARGET), ("first training step", stepped, STEP_TARGET))
    save_rows(
        [
            Row(f"start-up: {what}", f"{t.median():.2f} s", f"<= {limit:g} s", t.median() <= limit)
            for what, t, limit in waits
        ],
        options.rows,
    )


def _run(arguments: list[str], folder: Path, times: Times) -> None:
    """Runs and times one process with its data in `folder`. Raises `SystemExit` if it fails."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "RESTORA_DATA": str(folder / "data")}
    started, used = time.perf_counter(), _processor()
    answer = subprocess.run(
        [sys.executable, "-m", "restora.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    times.wall.append(time.perf_counter() - started)
    times.processor.append(_processor() - used)
    if answer.returncode:
        console().print(answer.stderr)
        raise SystemExit(f"restora {' '.join(arguments)} failed")


def _processor() -> float:
    """Processor seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
