"""A run's held-out figures and what `restora evaluate` finds on the same photos: equal to the last digit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restora.cli import main

BRIEF = (
    "data=folder",
    "data.patch_size=32",
    "data.batch_size=1",
    "data.steps_per_epoch=2",
    "trainer.max_steps=2",
    "trainer.max_time=null",
    "trainer.val_check_interval=2",
    "logger.mode=disabled",
    "leakage.check=false",
)
TASKS = {
    "denoise": ("network=dncnn_small", "degradation=gaussian_noise", "family.ema_decay=null"),
    "denoise_gray": ("network=dncnn_small", "network.in_channels=1", "data.channels=gray"),
    "local_converter": (
        "network=nafnet_small", "family=nafnet", "family.local_converter=[32,32]", "degradation=jpeg",
        "task=jpeg",
    ),
    "super_resolution_rgb": ("network=edsr_small", "network.scale=2", "degradation=bicubic_x2", "task=sr"),
    "super_resolution_y": (
        "network=espcn_small", "degradation=bicubic_x2", "task=sr", "protocol.color=y", "protocol.border=3",
        "protocol.y_rounded=true",
    ),
    "inpaint": ("network=unet_small", "family=unet", "degradation=inpaint_brush", "task=inpaint"),
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five crops, none of whose sides is a multiple of what a network wants."""
    root = tmp_path_factory.mktemp("photos")
    for index, split in enumerate(("train", "train", "val", "test", "test")):
        (root / split).mkdir(exist_ok=True)
        crop = np.ascontiguousarray(data.astronaut()[40 + 30 * index :, 150:][: 69 + index, :82])
        Image.fromarray(crop).save(root / split / f"photo{index}.png")
    return root


def figures_of(folder: Path) -> tuple[dict, list[dict[str, str]]]:
    with (folder / "per_image.csv").open(newline="") as file:
        return json.loads((folder / "summary.json").read_text()), list(csv.DictReader(file))


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_finds_what_the_run_found(task: str, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        *BRIEF, *TASKS[task], f"data.source.root={photos}", f"data_dir={tmp_path / 'data'}",
        f"hydra.run.dir={run}",
    ]  # fmt: skip
    assert main(["train", *words]) == 0
    record = json.loads((run / "run.json").read_text())
    own = record["test"]
    evaluations = {
        "held_out": (),
        "same_folder": ("benchmark=degraded", f"benchmark.root={photos / 'test'}"),
    }
    for name, benchmark in evaluations.items():
        output = tmp_path / name
        assert main(["evaluate", f"checkpoint={run}", *benchmark, f"output={output}"]) == 0
        summary, rows = figures_of(output)
        for metric in ("psnr", "ssim"):
            assert summary[metric] == own[metric]
            assert summary["input"][metric] == own[f"input_{metric}"]
        assert [row["name"] for row in rows] == [row["name"] for row in own["images"]] == ["photo3", "photo4"]
        for row, image in zip(rows, own["images"], strict=True):
            for metric in ("psnr", "ssim", "input_psnr", "input_ssim"):
                assert float(row[metric]) == image[metric], (name, metric)
        assert {key: summary["protocol"][key] for key in record["protocol"]} == record["protocol"]
    expected = {
        "super_resolution_y": ("y", 3),
        "super_resolution_rgb": ("rgb", 2),
        "denoise_gray": ("gray", 0),
    }
    assert (record["protocol"]["color"], record["protocol"]["border"]) == expected.get(task, ("rgb", 0))
