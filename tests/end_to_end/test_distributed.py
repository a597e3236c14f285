"""Two CPU processes train like one, and their sharded validation gives the same figures."""

import json
from pathlib import Path

import pytest
import torch
from warm_start import run_restora

COMMON = [
    "network=nafnet_small",
    "family=nafnet",
    "data.patch_size=32",
    "data.batch_size=4",
    "data.steps_per_epoch=4",
    "data.val_crop=64",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "threads=1",
]
TWO = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.precision=32-true",
    "compile=false",
]


def train(folder: Path, data: Path, *overrides: str) -> str:
    done = run_restora("train", *overrides, cwd=folder, merged=True, RESTORA_DATA=str(data))
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recipe on one process and, as two jobs of a sweep, on two."""
    root, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    train(root, data, *COMMON, "logger.mode=disabled", f"hydra.run.dir={root}/one")
    train(root, data, "-m", *COMMON, *TWO, "logger.mode=offline", "seed=1,2", f"hydra.sweep.dir={root}/two")
    return root / "one", root / "two"


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_sharded_validation_gives_the_same_figures(runs: tuple[Path, Path]) -> None:
    one, sweep = runs
    first, second = record(one), record(sweep / "0_nafnet_small")
    assert second["status"] == "finished"
    assert [row["name"] for row in first["test"]["images"]] == [
        row["name"] for row in second["test"]["images"]
    ]
    for a, b in zip(first["test"]["images"], second["test"]["images"], strict=True):
        assert a["input_psnr"] == pytest.approx(b["input_psnr"], abs=1e-6)  # the same noise
        assert a["psnr"] == pytest.approx(b["psnr"], abs=0.01)  # weights differ by the order of a sum


def test_two_processes_take_the_same_steps(runs: tuple[Path, Path]) -> None:
    one, sweep = runs
    weights = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for folder in (one, sweep / "0_nafnet_small")
    ]
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=2e-4, rtol=0)


def test_each_job_of_a_distributed_sweep_is_one_complete_run(runs: tuple[Path, Path]) -> None:
    _, sweep = runs
    folders = sorted(path.parent for path in sweep.rglob("run.json"))
    assert [folder.name for folder in folders] == ["0_nafnet_small", "1_nafnet_small"]
    assert [record(folder)["seed"] for folder in folders] == [1, 2]
    assert all(record(folder)["cost"]["steps"] == 6 for folder in folders)
    offline = [list(folder.glob("wandb/offline-run-*")) for folder in folders]
    assert [len(found) for found in offline] == [1, 1]
