"""Sweeps: the same command goes on, kills change nothing, failures are said and stay apart."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from kill_sweep import assert_equal, command, kill, left_behind, output, records, wait_until_jobs_run
from warm_start import start_typed as start

from restora.cli import main
from restora.run_state import is_locked

JOBS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_data_dir: Path) -> tuple[Path, Path]:
    """A folder with an undisturbed sweep in `calm/outputs`, and the data."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "calm").mkdir()
    process = start(command(JOBS), folder / "calm", shared_data_dir)
    assert process.wait(timeout=240) == 0, output(folder / "calm")
    return folder, shared_data_dir


def states(sweep: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["sweep", str(sweep), "--json"]) == 0
    return [job["state"] for job in json.loads(capsys.readouterr().out)["jobs"]]


def sweep_in(folder: Path) -> Path:
    (path,) = folder.rglob("sweep.json")
    return path.parent


def test_killed_and_stopped_it_ends_as_the_undisturbed_sweep(place: tuple[Path, Path]) -> None:
    """The process that starts jobs and after it the first are killed (in test_searches the whole tree, in
    `make test-kills` all at random); then it is asked to stop; then it ends."""
    folder, data = place
    rough, chance = folder / "rough", random.Random(7)
    rough.mkdir()
    kill(rough, data, command(JOBS), "server", chance, start)
    until = time.monotonic() + 60
    while left := left_behind(rough):  # its jobs save what they have
        assert time.monotonic() < until, left
        time.sleep(0.05)
    process = start(command(JOBS), rough, data)
    sweep = sweep_in(rough)
    wait_until_jobs_run(rough, process)
    assert is_locked(sweep)
    assert main(["sweep", str(sweep), "--stop"]) == 0
    assert process.wait(timeout=10) == 128 + 15
    assert not is_locked(sweep)
    assert not any(is_locked(record["folder"]) for record in records(rough))
    assert "failed" not in {record["status"] for record in records(rough)}
    assert start(command(JOBS), rough, data).wait(timeout=240) == 0, output(rough)
    assert_equal(rough, folder / "calm")


def test_the_same_command_skips_what_is_finished(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = place
    monkeypatch.chdir(folder / "calm")
    monkeypatch.setenv("RESTORA_DATA", str(data))
    before = [record["finished"] for record in records(folder / "calm")]
    assert main(command(JOBS)[3:]) == 0
    assert [record["finished"] for record in records(folder / "calm")] == before
    assert capsys.readouterr().err.count("finished already: skipped") == JOBS


def test_a_folder_that_was_moved_and_lost_jobs_is_made_whole(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job has lost its record, one is queued (its record names the old folder), one is gone; then, with
    all of them finished, the plan is cut off."""
    folder, data = place
    sweep, moved = sweep_in(folder / "calm"), tmp_path / "moved"
    shutil.copytree(sweep, moved)
    jobs = sorted(path.parent for path in moved.glob("*/run.json"))
    (jobs[0] / "run.json").unlink()
    (jobs[1] / "run.json").write_text((jobs[1] / "run.json").read_text().replace("finished", "queued", 1))
    shutil.rmtree(jobs[1] / "checkpoints")
    shutil.rmtree(jobs[2])
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*")}
    assert states(moved, capsys) == ["queued", "queued", "queued"]
    assert main(["sweep", str(moved), "--resume"]) == 2
    assert "give the command of the sweep again" in capsys.readouterr().err
    process = start(command(JOBS, f"hydra.sweep.dir={moved}"), tmp_path, data)
    assert process.wait(timeout=240) == 0, output(tmp_path)
    assert "resumes after step 12" in (jobs[0] / "train.log").read_text()
    (moved / "sweep.json").write_text((moved / "sweep.json").read_text()[:500])
    process = start(command(JOBS, f"hydra.sweep.dir={moved}"), tmp_path, data)
    assert process.wait(timeout=240) == 0, output(tmp_path)
    assert "it is rebuilt from the folders of the jobs" in output(tmp_path)
    assert states(moved, capsys) == ["finished", "finished", "finished"]
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*")} == before
    assert_equal(tmp_path, folder / "calm")


def test_a_plan_says_what_each_job_is(place: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = place
    sweep = sweep_in(folder / "calm")
    assert states(sweep, capsys) == ["finished"] * JOBS
    plan = json.loads((sweep / "sweep.json").read_text())
    assert [job["overrides"][-1] for job in plan["jobs"]] == [f"seed={seed}" for seed in range(1, JOBS + 1)]
    assert len({job["identity"] for job in plan["jobs"]}) == JOBS
    assert main(["sweep", str(sweep)]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert f"{JOBS} finished" in said
    assert main(["sweep", str(sweep.parent)]) == 2
    assert "is not a sweep folder" in capsys.readouterr().err


def test_what_fails_is_said_and_the_others_go_on(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job diverges, one is killed; then what failed is tried again by the folder alone."""
    _, data = place
    words = [word for word in command(1) if "callbacks.slow" not in word]
    longer = ["trainer.max_steps=300", "trainer.val_check_interval=100", "sweep.slots=1"]
    words += [*longer, "family.optimizer.lr=1e-3,1e30,1e-4", "hydra.sweep.dir=sweep"]
    process = start(words, tmp_path, data)
    sweep = tmp_path / "sweep"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _last_runs(sweep):
        time.sleep(0.1)
    os.kill(records(tmp_path)[2]["process"]["pid"], 9)
    assert process.wait(timeout=120) == 1
    assert states(sweep, capsys) == ["finished", "failed", "failed"]
    said = output(tmp_path)
    assert "1_dncnn_small failed: NonFinite" in said
    assert f"see {Path('sweep') / '1_dncnn_small' / 'train.log'}" in said
    assert "killed by SIGKILL" in said
    assert "Traceback" in (sweep / "1_dncnn_small" / "train.log").read_text()

    again = ["restora", "sweep", str(sweep), "--resume"]
    assert start(again, tmp_path, data).wait(timeout=120) == 1
    assert states(sweep, capsys) == ["finished", "failed", "finished"]


def _last_runs(sweep: Path) -> bool:
    return (sweep / "2_dncnn_small" / "checkpoints").exists()


def test_a_strangers_sweep_runs_no_code(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = place
    plan = json.loads((sweep_in(folder / "calm") / "sweep.json").read_text())
    for changes, said in (
        ({"environment": {"LD_PRELOAD": "x.so"}}, "sets LD_PRELOAD"),
        ({"plugins": ["antigravity"]}, "add --plugin antigravity if you trust it"),
        ({"jobs": [plan["jobs"][0] | {"name": "../elsewhere"}]}, "is not in the folder"),
        ({}, "slow_training.Pause, which is not a registered part"),
    ):
        for job in plan["jobs"]:
            source = sweep_in(folder / "calm") / job["name"] / "run.json"
            target = tmp_path / job["name"] / "run.json"
            target.parent.mkdir(exist_ok=True)
            target.write_text(source.read_text())
        (tmp_path / "sweep.json").write_text(json.dumps(plan | changes))
        assert main(["sweep", str(tmp_path), "--resume"]) == 2
        assert said in capsys.readouterr().err
