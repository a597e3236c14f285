"""Any family with any objective: trains, goes on exactly from the middle of an epoch, exports, and the
exported model restores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import photo
from tiny_runs import DNCNN, UNLOGGED

from restora.artifact.restorer import Restorer
from restora.cli import main

TESTS = Path(__file__).resolve().parents[1]
STEPS, KEPT = 7, 5
COMMON = [
    *UNLOGGED,
    "data.patch_size=32",
    "data.steps_per_epoch=3",  # the kept step is in the middle of an epoch
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=4",
    "callbacks.last.every_n_steps=1",
]
SMALL_DISCRIMINATOR = [
    "discriminator@objective.adversarial.discriminator=patch_small",
    "objective.adversarial.discriminator.norm=none",
]
NAFNET = ["family=nafnet", "network=nafnet_small"]
PLAIN_DNCNN = ["family=residual_cnn", *DNCNN, "network.batch_norm=false"]
COMBINATIONS = {
    "nafnet, supervised + adversarial": [
        *NAFNET,
        "objective=[supervised,adversarial]",
        *SMALL_DISCRIMINATOR,
    ],
    "residual CNN, supervised + distil": [
        *PLAIN_DNCNN,
        "objective=[supervised,distil]",
        "objective.distil.teacher=TEACHER",
        "degradation=on_demand_noise",  # its shares move at the validation before the kept step
    ],
    "U-Net, multi-scale + adversarial + feature matching": [
        "family=unet",
        "network=unet_small",
        "network.side_outputs=1",
        "objective=[multi_scale,feature_matching,adversarial]",
        "objective.multi_scale.scale_weights=[1,0.5]",
        "adversarial@objective.adversarial.loss=hinge",
        *SMALL_DISCRIMINATOR,
    ],
    "residual CNN, noise2void from noisy photos alone": [
        *PLAIN_DNCNN,
        "data=noisy_folder",
        "data.source.root=NOISY",
        "degradation=identity",
        "monitor.metric=val/loss",
        "objective=noise2void",
    ],
    "U-Net, neighbor2neighbor + blind2unblind + noise2noise + recorrupted + SURE": [
        "family=unet",
        "network=noise2noise_unet_small",
        "objective=[neighbor2neighbor,blind2unblind,noise2noise,recorrupted,sure]",
        "data.target=noisy",
    ],
    "GAN, cycle of unpaired photos": [
        "family=gan",
        "network=resnet_generator_small",
        "data=unpaired_folder",
        "data.source.root=UNPAIRED",
        "degradation=identity",
        "objective=cycle",
        "objective.cycle.history=6",
        *[
            f"discriminator@objective.cycle.{half}_discriminator=patch_small"
            for half in ("clean", "degraded")
        ],
        "monitor.metric=val/loss",
    ],
    "residual CNN, one way between unpaired photos": [
        *DNCNN,
        "data=unpaired_folder",
        "data.source.root=UNPAIRED",
        "degradation=identity",
        "objective=fastcut",
        "objective.fastcut.places=64",
        "objective.fastcut.features=16",
        "discriminator@objective.fastcut.discriminator=patch_small",
        "monitor.metric=val/loss",
    ],
    "transformer, masked": [
        "family=transformer",
        "network=restormer_small",
        "network.channels=8",
        "degradation=inpaint_brush",
        "objective=masked",
    ],
}


@pytest.fixture(scope="module")
def data(shared_data_dir: Path) -> Path:
    return shared_data_dir


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose network has the architecture of the one that learns from it."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    words = ["train", *PLAIN_DNCNN, *COMMON, f"data_dir={data}", f"hydra.run.dir={folder}", "seed=7"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noisy photos in degraded/, and of other, clean ones in clean/."""
    folder = tmp_path_factory.mktemp("noisy")
    generator = np.random.default_rng(0)
    for half, sigma in (("degraded", 25), ("clean", 0)):
        (folder / half).mkdir()
        for index in range(6):
            spoilt = photo(64, 80, seed=index + (0 if sigma else 3)) + generator.normal(0, sigma, (64, 80, 3))
            pixels = spoilt.clip(0, 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / half / f"{index}.png")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    assert checkpoint["restora"]["step"] == STEPS
    return checkpoint["state_dict"]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_run_goes_on_exactly_and_exports(
    name: str, data: Path, teacher: Path, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TESTS))
    chosen = [
        word.replace("TEACHER", str(teacher))
        .replace("NOISY", f"{noisy}/degraded")
        .replace("UNPAIRED", str(noisy))
        for word in COMBINATIONS[name]
    ]
    folder, again = tmp_path / "run", tmp_path / "again"
    keep = [
        "+callbacks.keep._target_=keep_checkpoint.KeepAt",
        f"+callbacks.keep.step={KEPT}",
        f"+callbacks.keep.directory={folder}/checkpoints",
    ]
    words = [*chosen, *COMMON, f"data_dir={data}"]
    assert main(["train", *words, *keep, f"hydra.run.dir={folder}"]) == 0
    whole = weights(folder)

    shutil.copytree(folder, again)
    (folder / "checkpoints" / "kept.ckpt").replace(again / "checkpoints" / "last.ckpt")
    assert main(["train", f"resume={again}", "callbacks.keep=null"]) == 0
    resumed = weights(again)
    assert whole.keys() == resumed.keys()
    assert not [key for key in whole if not torch.equal(whole[key], resumed[key])]

    record = json.loads((folder / "run.json").read_text())
    assert list(record["config"]["objective"]) == [
        part for part in chosen_objectives(chosen) if part in record["config"]["objective"]
    ]
    if "monitor.metric=val/loss" in chosen:  # chosen, reported and exported without a clean photo
        assert record["metrics"]["best"]["val/loss"] > 0
        assert "val/psnr" not in record["metrics"]["best"]
        assert main(["report", str(folder), "--output", str(tmp_path / "report.html")]) == 0
    assert main(["export", str(folder), str(tmp_path / "model"), "--no-onnx"]) == 0
    restorer = Restorer.load(tmp_path / "model")
    pixels = torch.rand(1, 3, 40, 56)
    condition = None
    if "degradation=inpaint_brush" in chosen and restorer.network.condition_channels:
        condition = torch.ones(1, 1, 40, 56)
    assert restorer(pixels, condition).shape == (1, 3, 40, 56)


def chosen_objectives(words: list[str]) -> list[str]:
    (word,) = [word for word in words if word.startswith("objective=")]
    return word.partition("=")[2].strip("[]").split(",")
