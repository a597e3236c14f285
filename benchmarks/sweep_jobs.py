"""What a sweep adds to each training: the wall time of a job in a process of its own, without the training.

    python benchmarks/sweep_jobs.py [--jobs 12] [--quick]

Two sweeps of tiny jobs, one longer than the other, one job at a time, give the time of a further job:
composed, checked, forked, trained and closed. The time of the same trainings, one after the other in one warm
process, is subtracted. Also counts the threads that compute if there are as many slots as cores.
"""

import ast
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Row, machine, parser, print_table, save_rows

from restora.files import json_text, read_json, write_json

TARGET = 1.0
WORDS = [
    *(
        "network=dncnn_small",
        "network.depth=4",
        "network.channels=8",
        "data.patch_size=24",
        "data.batch_size=4",
    ),
    *("data.steps_per_epoch=9", "data.val_crop=48", "trainer.max_steps=12", "logger.mode=disabled"),
    *("leakage.check=false", "threads=1"),
]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--jobs", type=int, default=12)
    made.add_argument("--trained", type=Path, help="a sweep folder whose trainings are timed in this process")
    options = made.parse_args()
    if options.trained:
        print(json_text(trained(options.trained), indent=None))
        return
    jobs = 6 if options.quick else options.jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep(folder / "first", 1)  # packs the photos
        short, long = sweep(folder / "short", 2), sweep(folder / "long", 2 + jobs)
        warm = in_one_process(folder / "long" / "sweep", folder)
        busiest = threads_at_once(folder / "slots")
    each, alone = [(more - few) / jobs for few, more in zip(short, long, strict=True)], medians(warm)
    beyond, computed = (one - other for one, other in zip(each, alone, strict=True))
    cores = len(os.sched_getaffinity(0))
    names = ("a further job of a sweep", "its training in a warm process", "beyond the training")
    rows = [
        [name, f"{wall:.2f}", f"{processor:.2f}"]
        for name, (wall, processor) in zip(names, (each, alone, (beyond, computed)), strict=True)
    ]
    print_table(f"a sweep of {2 + jobs} jobs, {machine()}", ["", "seconds", "processor"], rows)
    save_rows(
        [
            Row(
                "sweep: beyond the training of a job",
                f"{beyond:.2f} s",
                "<= 1 s",
                beyond <= TARGET,
            ),
            Row("sweep: threads at work, slots = cores", f"{busiest}", f"<= {cores}", busiest <= cores),
        ],
        options.rows,
    )
    print(f"{busiest} threads at work on {cores} cores")


def start(folder: Path, jobs: int, *more: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(parents=True, exist_ok=True)
    seeds = f"seed={','.join(map(str, range(1, jobs + 1)))}"
    words = ["-m", "restora", "train", "-m", *WORDS, seeds, "hydra.sweep.dir=sweep", *more]
    environment = {**os.environ, "RESTORA_DATA": str(folder.parent / "data")}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stderr=output, stdout=output
        )


def sweep(folder: Path, jobs: int) -> tuple[float, float]:
    """Wall and processor seconds of a whole sweep. Raises `SystemExit` with its output if it fails."""
    began, before = time.perf_counter(), children()
    if start(folder, jobs, "sweep.slots=1").wait():
        raise SystemExit((folder / "output.txt").read_text())
    return time.perf_counter() - began, children() - before


def children() -> float:
    """Processor seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in pairs), statistics.median(used for _, used in pairs)


def in_one_process(sweep: Path, folder: Path) -> list[tuple[float, float]]:
    """Wall and processor seconds of each training but the first, all in one process; resets their status."""
    environment = {**os.environ, "RESTORA_DATA": str(folder / "data")}
    command = [sys.executable, __file__, "--trained", str(sweep)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return list(ast.literal_eval(done.stdout.splitlines()[-1]))[1:]


def trained(sweep: Path) -> list[tuple[float, float]]:
    from restora.training.starting import start_folder

    seconds = []
    for path in sorted(sweep.glob("*/run.json")):
        write_json(path, read_json(path) | {"status": "queued"})
        began, before = time.perf_counter(), time.process_time()
        start_folder(path.parent, threads=1)
        seconds.append((time.perf_counter() - began, time.process_time() - before))
    return seconds


def threads_at_once(folder: Path) -> int:
    """The most threads that compute at once in running jobs, with a slot for each core."""
    cores = len(os.sched_getaffinity(0))
    words = ["threads=null", f"sweep.slots={cores}", "trainer.max_steps=60", "network.channels=32"]
    process = start(folder, 2 * cores, *words)
    most = 0
    while process.poll() is None:
        counts = [compute_threads(record) for record in folder.glob("sweep/*/run.json")]
        most = max(most, sum(counts))
        time.sleep(0.2)
    return most


def compute_threads(record: Path) -> int:
    """The number of a running job's threads with more than a tenth of its busiest thread's time."""
    try:
        content = read_json(record)
        if content["status"] != "running":
            return 0
        ticks = []
        for stat in Path(f"/proc/{content['process']['pid']}/task").glob("*/stat"):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks.append(int(fields[11]) + int(fields[12]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return sum(tick > max(ticks) / 10 for tick in ticks) if ticks and max(ticks) > 20 else 0


if __name__ == "__main__":
    main()
