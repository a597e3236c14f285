"""A run that is stopped in the middle of an epoch and goes on ends with the weights of one that was not, bit
for bit."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import DNCNN, UNLOGGED
from warm_start import Started, start_restora

from restora.run_state import status_of

TESTS = Path(__file__).resolve().parents[1]  # where slow_training.py is
STEPS = 22
COMMON = [
    *DNCNN,
    *UNLOGGED,
    "data.steps_per_epoch=9",  # stops fall into the middle of an epoch
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=7",
    "callbacks.last.every_n_steps=2",
]


def start(folder: Path, data: Path, *overrides: str) -> Started:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return start_restora(
        "train", *overrides, f"hydra.run.dir={folder}", RESTORA_DATA=str(data), PYTHONPATH=path
    )


def finish(process: Started, expected: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == expected, output
    return output


def wait_for_step(process: Started, folder: Path, step: int) -> None:
    """Until metrics.csv has seen `step` (that is, the run is in the middle of its work)."""
    csv, deadline = folder / "metrics.csv", time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if csv.exists() and len(csv.read_text().splitlines()) > step:
            return
        time.sleep(0.01)
    output = process.communicate(timeout=10)[0] if process.poll() is not None else ""
    pytest.fail(f"the run never reached step {step}\n{output}")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)
    assert checkpoint["restora"]["step"] == STEPS
    return checkpoint["state_dict"]


@pytest.fixture(scope="module")
def data(shared_data_dir: Path) -> Path:
    return shared_data_dir


ACCUMULATING = [
    "trainer.accumulate_grad_batches=4",
    "data.steps_per_epoch=10",  # 4 + 4 + 2
    "trainer.val_check_interval=9",
    "callbacks.last.every_n_steps=3",  # in the middle of accumulations
]
RECIPES = {"plain": COMMON, "accumulating": [*COMMON, *ACCUMULATING]}
SLOW = ["+callbacks.slow._target_=slow_training.Pause", "+callbacks.slow.seconds=0.15"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, words in RECIPES.items():
        finish(start(folder / name, data, *words))
    return {name: folder / name for name in RECIPES}


@pytest.mark.parametrize(
    ("recipe", "step", "how"),
    [
        ("plain", 6, signal.SIGTERM),
        ("plain", 6, signal.SIGINT),
        ("accumulating", 8, signal.SIGHUP),
        ("accumulating", 9, signal.SIGKILL),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    recipe: str, step: int, how: signal.Signals, uninterrupted: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Also in the middle of an accumulation. A kill between accumulations: in test_sweeps."""
    folder = tmp_path / "run"
    process = start(folder, data, *RECIPES[recipe], *SLOW)
    wait_for_step(process, folder, step)
    process.send_signal(how)
    output = process.communicate(timeout=120)[0]
    before = json.loads((folder / "run.json").read_text())
    if how == signal.SIGKILL:
        assert process.returncode == -how
        assert status_of(before, folder) == "dead"
    else:
        assert process.returncode == 128 + how
        assert before["status"] == "stopped"
        assert "stopped at step" in output
        assert f"resume with: restora train resume={folder}" in output
    stopped_at = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["restora"]["step"]
    assert 0 < stopped_at < STEPS

    finish(start(folder, data, f"resume={folder}", "callbacks.slow=null"))
    check_equal(uninterrupted[recipe], folder)


def check_equal(uninterrupted: Path, folder: Path) -> None:
    whole, resumed = weights(uninterrupted), weights(folder)
    assert whole.keys() == resumed.keys()
    different = [key for key in whole if not torch.equal(whole[key], resumed[key])]
    assert not different
    after = json.loads((folder / "run.json").read_text())
    assert after["status"] == "finished"
    reference = json.loads((uninterrupted / "run.json").read_text())
    assert after["test"]["psnr"] == reference["test"]["psnr"]
    assert after["metrics"]["best"] == reference["metrics"]["best"]
    assert after["cost"]["samples"] == reference["cost"]["samples"]
    assert rows(folder) == rows(uninterrupted)
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".part")]
    assert not (folder / ".lock").exists()


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_resume_names_what_is_not_a_run(tmp_path: Path, data: Path) -> None:
    output = finish(start(tmp_path / "x", data, f"resume={tmp_path / 'nothing'}"), expected=2)
    assert "nothing" in output
    assert "run folder" in output
