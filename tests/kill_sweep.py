"""A sweep of tiny jobs, killed at random and started again by the same command until it is whole.

`python tests/kill_sweep.py --jobs 20 --kills 10` compares it with an undisturbed sweep; `make test-kills`
does that. A kill takes the whole tree of processes, the first process alone, the one that starts jobs, or a
single job, by SIGKILL, or asks the first process to stop. `--executor slurm` also requeues jobs in mid-run,
and `--search` makes the jobs trials of two objectives with pruning.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from restora.run_state import status_of

TESTS = Path(__file__).resolve().parent
WORDS = [
    "network=dncnn_small",
    "network.depth=4",
    "network.channels=8",
    "data.patch_size=24",
    "data.batch_size=4",
    "data.steps_per_epoch=9",
    "data.val_crop=48",
    "trainer.max_steps=12",
    "trainer.val_check_interval=4",
    "callbacks.last.every_n_steps=2",
    "+callbacks.slow._target_=slow_training.Pause",
    "+callbacks.slow.seconds=0.1",
    "logger.mode=disabled",
    "leakage.check=false",
    "threads=1",
]
KINDS = {
    "local": ("tree", "first", "server", "job", "stop"),
    "slurm": ("tree", "first", "requeue", "job", "stop"),
    "ray": ("tree", "first", "job", "stop"),
}
SEARCH = [
    *("sweep=random", "sweep.search.seed=3", "sweep.search.pruner=median"),
    *("sweep.search.objectives={val/psnr:max,macs_256:min}", "network.channels=4,6,8"),
    "family.optimizer.lr=tag(log,interval(1e-4,1e-1))",
]


def command(jobs: int, *more: str) -> list[str]:
    """The command of the sweep, typed in the folder that gets `outputs/`."""
    seeds = ",".join(str(seed) for seed in range(1, jobs + 1))
    return [sys.executable, "-m", "restora", "train", "-m", *WORDS, f"seed={seeds}", "sweep.slots=2", *more]


def start(words: list[str], folder: Path, data: Path) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "RESTORA_DATA": str(data), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output)


def below(process: int) -> list[int]:
    """All processes that descend from one, nearest first."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def hit(first: int, kind: str, chance: random.Random) -> None:
    """One kill of the kind."""
    if numbers := elements():
        if kind == "requeue":
            subprocess.run(["scontrol", "requeue", numbers[0]], check=False)
        elif kind == "job":
            subprocess.run(["scancel", "--signal=KILL", numbers[0]], check=False)
    children = [pid for pid in below(first) if _parent(pid) == first]
    server = next((pid for pid in children if below(pid)), next(iter(children), None))  # it has the jobs
    jobs = [] if server is None else [pid for pid in below(server) if _parent(pid) == server]
    if clustered := [pid for pid in below(first) if "restora.sweeping.job" in _command(pid)]:
        jobs = clustered
    targets = {
        "tree": [first, *below(first)],
        "first": [first],
        "server": [] if server is None else [server],
        "job": jobs[:1],
        "stop": [first],
        "requeue": [],
    }[kind]
    chance.shuffle(targets)
    for pid in targets:
        try:
            os.kill(pid, signal.SIGTERM if kind == "stop" else signal.SIGKILL)
        except ProcessLookupError:
            continue


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def elements(state: str = "running") -> list[str]:
    """What SLURM has in the queue, where there is one."""
    if "SLURM_CONF" not in os.environ:
        return []
    query = ["squeue", "--me", "--array", "--noheader", "--format=%F_%K", f"--states={state}"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()


def release(process: "subprocess.Popen[bytes]") -> int:
    """Waits for the command, and has SLURM start at once what it would hold back after a requeue."""
    while process.poll() is None:
        held = elements("pending")
        time.sleep(4.0)  # what it starts within a second of its end, SLURM ends again: credential revoked
        for number in held:
            now = ["scontrol", "update", f"jobid={number}", "StartTime=now"]
            subprocess.run(now, check=False, capture_output=True)
    return process.returncode


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still work in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve(strict=True).is_relative_to(folder.resolve()):
                found.append(_command(int(path.parent.name)).replace("\0", " "))
        except OSError:
            continue
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    """What the jobs of the sweep in `folder` say, by their folders."""
    paths = sorted(folder.rglob("run.json"), key=lambda path: int(path.parent.name.partition("_")[0]))
    return [json.loads(path.read_text()) | {"folder": path.parent} for path in paths]


def running(folder: Path) -> int:
    """How many jobs are being trained, by processes that live."""
    return sum(status_of(record, record["folder"]) == "running" for record in records(folder))


def wait_until_jobs_run(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 180
    while not running(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)


def kill(
    folder: Path,
    data: Path,
    words: list[str],
    kind: str,
    chance: random.Random,
    starting: Callable[[list[str], Path, Path], Any] = start,
) -> None:
    """Starts the command and, once jobs run, kills it."""
    process = starting(words, folder, data)
    wait_until_jobs_run(folder, process)
    time.sleep(chance.uniform(0.0, 2.5))
    hit(process.pid, kind, chance)
    if kind in ("server", "job", "requeue"):  # the sweep itself goes on: killed a little later
        time.sleep(chance.uniform(0.0, 1.0))
        hit(process.pid, "first", chance)
    process.wait(timeout=120)


def output(folder: Path) -> str:
    """The end of what the commands in a folder have said."""
    return (folder / "output.txt").read_text()[-3000:]


def assert_equal(disturbed: Path, undisturbed: Path) -> None:
    """The same jobs, all finished, with the same weights, bit for bit, and the same figures."""
    made, wanted = records(disturbed), records(undisturbed)
    assert [record["status"] for record in made] == ["finished"] * len(wanted)
    for one, other in zip(made, wanted, strict=True):
        assert one["overrides"] == other["overrides"]
        assert one["metrics"] == other["metrics"]
        assert one["test"]["psnr"] == other["test"]["psnr"]
        assert_same_weights(one, other)


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit for bit, of the last checkpoints of two runs."""
    weights, expected = (
        torch.load(record["folder"] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for record in (one, other)
    )
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def trials(folder: Path) -> list[Any]:
    """Those of a search that have a whole point: a kill may have cut one off while it was chosen."""
    from restora.sweeping.search import Settings, open_study

    (path,) = folder.rglob("sweep.json")
    monitor = {"metric": "val/psnr", "direction": "max"}
    settings = Settings.of(json.loads(path.read_text())["settings"]["search"], monitor)
    found = open_study(path.parent, settings).trials
    whole = max((len(trial.params) for trial in found), default=0)
    return [trial for trial in found if trial.params and len(trial.params) == whole]


def assert_same_search(disturbed: Path, undisturbed: Path, count: int) -> dict[str, int]:
    """The same points, each answered by its folder; what was trained to its end in both came to the same.

    Which trials are pruned depends on what the others had validated at the time.
    """
    made, wanted = trials(disturbed), trials(undisturbed)
    jobs, others = (
        {record["folder"].name: record for record in records(f)} for f in (disturbed, undisturbed)
    )
    assert [trial.params for trial in made] == [trial.params for trial in wanted]
    assert len(made) == count
    states: dict[str, int] = {}
    for one, other in zip(made, wanted, strict=True):
        job, twin = jobs[one.user_attrs["folder"]], others[other.user_attrs["folder"]]
        status = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}[one.state.name]
        assert job["status"] == status
        states[status] = states.get(status, 0) + 1
        if status == "finished":
            assert one.values == [job["metrics"]["best"]["val/psnr"], job["macs_256"]]
        assert status != "failed" or "killed" in one.user_attrs["reason"]
        if job["status"] == twin["status"] == "finished":
            assert_same_weights(job, twin)
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--executor", choices=sorted(KINDS), default="local")
    parser.add_argument("--search", action="store_true")
    words = parser.parse_args()
    chance = random.Random(words.seed)
    began, what = time.monotonic(), "jobs"
    with tempfile.TemporaryDirectory() as place:
        calm, rough, data = (Path(place, name) for name in ("calm", "rough", "data"))
        calm.mkdir()
        rough.mkdir()
        typed = [*SEARCH, f"sweep.search.trials={words.jobs}"] if words.search else []
        typed = command(1 if words.search else words.jobs, *typed)
        on = [*typed, f"sweep.executor={words.executor}"]
        assert start(typed, calm, data).wait() == 0, output(calm)
        kinds = ["tree", *(chance.choice(KINDS[words.executor]) for _ in range(words.kills - 1))]
        for kind in kinds:
            kill(rough, data, on, kind, chance)
        assert release(start(on, rough, data)) == 0, output(rough)
        if words.search:
            what = f"trials {assert_same_search(rough, calm, words.jobs)}"
        else:
            assert_equal(rough, calm)
        assert len(list(rough.rglob("sweep.json"))) == 1
        assert not left_behind(rough), left_behind(rough)
        assert not list(rough.rglob("*.journal.lock*"))
    print(
        f"{words.executor}: {words.jobs} {what}, killed {len(kinds)} times ({', '.join(kinds)}): equal to "
        f"the undisturbed sweep, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
