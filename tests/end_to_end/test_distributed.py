"""Several CPU processes train like one, go on with what another number began, and end together."""

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_sweep import left_behind
from tiny_runs import DNCNN, TINY
from warm_start import run_code, run_restora, start_code

from restora.files import read_json_lines

TESTS = Path(__file__).resolve().parents[1]
SHORT = [
    *TINY,
    "data.patch_size=32",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "compile=false",
]
THREE = [*SHORT, "data.steps_per_epoch=3", "trainer.max_steps=3", "trainer.val_check_interval=3"]
PATCH_SMALL = "discriminator@objective.adversarial.discriminator=patch_small"
RESIDUAL = ["family=residual_cnn", *DNCNN]
CASES = {
    "DnCNN of the paper, batch norm": [
        # at its depth of 17, float32 and float64 of one process differ by 4e-4 after three steps
        *("family=residual_cnn", "network=dncnn", "network.depth=5", "network.channels=16"),
        "data.channels=gray",
    ],
    "GAN with batch norm in both networks, relativistic": [
        *(
            "family=gan",
            "network=msrresnet_small",
            "network.scale=1",
            "network.channels=8",
            "network.blocks=2",
        ),
        *(PATCH_SMALL, "objective.adversarial.discriminator.norm=batch"),
        "adversarial@objective.adversarial.loss=relativistic",
    ],
    "NAFNet, adversarial with gradient penalty, feature matching": [
        *("family=nafnet", "network=nafnet_small", "objective=[supervised,adversarial,feature_matching]"),
        *(PATCH_SMALL, "objective.adversarial.discriminator.norm=none"),
        "adversarial@objective.adversarial.loss=wasserstein",
    ],
    "U-Net, multi-scale, perceptual": [
        *("family=unet", "network=unet_small", "network.side_outputs=1"),
        *("objective=[multi_scale,perceptual]", "objective.multi_scale.scale_weights=[1,0.5]"),
        *("perceptual@objective.perceptual.loss=lpips", "objective.perceptual.loss.net=alex"),
        "objective.perceptual.loss.weights=BACKBONE",
    ],
    "U-Net with batch norm and dropout": ["family=unet", "network=pix2pix_unet_small"],
    "transformer, masked": [
        *("family=transformer", "network=restormer_small", "network.channels=8"),
        *("degradation=inpaint_brush", "objective=masked"),
    ],
    "transformer, stochastic depth": [
        *("family=transformer", "network=swinir_denoise_small", "network.drop_path=0.5"),
    ],
    "noise2void": [*RESIDUAL, "objective=noise2void"],
    "noise2noise": [*RESIDUAL, "objective=noise2noise"],
    "neighbor2neighbor": [*RESIDUAL, "objective=neighbor2neighbor"],
    "blind2unblind": [*RESIDUAL, "objective=blind2unblind"],
    "recorrupted": [*RESIDUAL, "objective=recorrupted"],
    "SURE": [*RESIDUAL, "objective=sure"],
    "distil": [
        *(*RESIDUAL, "data.channels=gray", "network.in_channels=1"),
        *("objective=distil", "objective.distil.teacher=zoo:half_minute"),
    ],
    "cycle": [
        *("family=gan", "network=resnet_generator_small", "objective=cycle", "objective.cycle.history=6"),
        "discriminator@objective.cycle.clean_discriminator=patch_small",
        "discriminator@objective.cycle.degraded_discriminator=patch_small",
    ],
    "cycle of noise": [
        *("family=gan", *DNCNN, "network.batch_norm=false", "objective=cycle_noise"),
        "objective.cycle.history=6",
        "discriminator@objective.cycle.clean_discriminator=patch_small",
        "discriminator@objective.cycle.degraded_discriminator=patch_small",
    ],
    "fastcut": [
        *(*DNCNN, "network.batch_norm=false", "objective=fastcut", "objective.fastcut.places=64"),
        "family.initialisation=he",  # from other weights rounding grows
        *("objective.fastcut.features=16", "objective.fastcut.contrast_weight=0.1"),
        "discriminator@objective.fastcut.discriminator=patch_small",
    ],
}
TWO = ["trainer.strategy=ddp", "trainer.devices=2"]
DOUBLE = {"cycle"}
"""Trained in float64, where they differ by 4e-14 after three steps; a cycle enlarges rounding, in float32 to
4e-4."""
FOUR = [
    "GAN with batch norm in both networks, relativistic",
    "U-Net with batch norm and dropout",
    "noise2void",
]


def write_backbone(path: Path) -> str:
    """AlexNet's convolutions, with random weights."""
    generator, state = torch.Generator().manual_seed(1), {}
    for index, shape in {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }.items():
        values = torch.randn(shape, generator=generator)
        state[f"features.{index}.weight"] = values * (2 / values[0].numel()) ** 0.5
        state[f"features.{index}.bias"] = torch.zeros(shape[0])
    torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_data_dir: Path) -> dict[int, dict[str, Any]]:
    """Every case on one and two processes, some on four, by their number."""
    folder = tmp_path_factory.mktemp("trained")
    backbone = write_backbone(folder / "alexnet.pth")
    cases = {
        name: [*THREE, *(word.replace("BACKBONE", backbone) for word in words), f"data_dir={shared_data_dir}"]
        for name, words in CASES.items()
    }
    worlds = {1: [*CASES], 2: [*CASES], 4: FOUR}
    call = f"main(Path({str(folder)!r}), {cases}, {worlds}, {DOUBLE})"
    code = f"from several_processes import main, Path\nraise SystemExit({call})"
    done = run_code(code, PYTHONPATH=_path())
    assert done.returncode == 0, done.stdout
    return {world: torch.load(folder / f"of_{world}.pt", weights_only=False) for world in worlds}


@pytest.mark.parametrize("name", CASES)
def test_several_processes_train_what_one_does(name: str, trained: dict[int, dict[str, Any]]) -> None:
    one = trained[1][name]
    for several in [trained[world][name] for world in (2, 4) if name in trained[world]]:
        exact = name in DOUBLE
        for key, value in one["weights"].items():
            rounding = 0.05 if value.dtype == torch.float16 else 1e-9 if exact else 1e-5
            torch.testing.assert_close(several["weights"][key], value, atol=rounding, rtol=0)
        assert several["losses"] == pytest.approx(
            one["losses"], rel=1e-9 if exact else 1e-4
        )  # the global ones
        assert [row["name"] for row in several["scores"]] == [row["name"] for row in one["scores"]]
        for here, there in zip(several["scores"], one["scores"], strict=True):
            assert here["psnr"] == pytest.approx(there["psnr"], abs=1e-3)


# --- the command -----------------------------------------------------------------------------------------

SIX = [
    *(word for word in SHORT if not word.startswith("trainer.acc")),
    *("network=nafnet_small", "family=nafnet"),
    *("data.steps_per_epoch=4", "trainer.max_steps=6", "trainer.val_check_interval=3"),
    "callbacks.last.every_n_steps=1",
    "callbacks.non_finite.patience=1",  # one lost step, and all processes go back
    "+callbacks.poison={_target_:fault_callbacks.Poison,what:loss,steps:[4]}",
]


def train(folder: Path, data: Path, *words: str) -> str:
    done = run_restora("train", *words, cwd=folder, merged=True, RESTORA_DATA=str(data), PYTHONPATH=_path())
    assert done.returncode == 0, done.stdout
    return done.stdout


def _path() -> str:
    return f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def check_alike(here: Path, there: Path, *, decibels: float) -> None:
    first, second = record(here), record(there)
    assert first["status"] == second["status"] == "finished"
    for a, b in zip(first["test"]["images"], second["test"]["images"], strict=True):
        assert a["name"] == b["name"]
        assert a["input_psnr"] == pytest.approx(b["input_psnr"], abs=1e-6)  # the same noise
        assert a["psnr"] == pytest.approx(b["psnr"], abs=decibels)
    ours, theirs = weights(here), weights(there)
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=2e-4, rtol=0)  # Adam enlarges rounding


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, shared_data_dir: Path) -> Path:
    """A run of six steps on one process, which kept its checkpoint of step 5."""
    folder = tmp_path_factory.mktemp("one") / "run"
    keep = ["+callbacks.keep._target_=keep_checkpoint.KeepAt", "+callbacks.keep.step=5"]
    keep += [f"+callbacks.keep.directory={folder}/checkpoints"]
    train(folder.parent, shared_data_dir, *SIX, *keep, "logger.mode=disabled", f"hydra.run.dir={folder}")
    return folder


def test_a_sweep_of_distributed_jobs_gives_complete_runs(
    one: Path, shared_data_dir: Path, tmp_path: Path
) -> None:
    only = "+callbacks.poison.rank=1"  # the other process has a finite loss
    words = ["-m", *SIX, *TWO, only, "logger.mode=offline", "seed=1,2", f"hydra.sweep.dir={tmp_path}/two"]
    train(tmp_path, shared_data_dir, *words)
    folders = sorted(path.parent for path in tmp_path.rglob("run.json"))
    assert [folder.name for folder in folders] == ["0_nafnet_small", "1_nafnet_small"]
    assert [record(folder)["seed"] for folder in folders] == [1, 2]
    assert all(record(folder)["cost"]["steps"] == 6 for folder in folders)
    assert [len(list(folder.glob("wandb/offline-run-*"))) for folder in folders] == [1, 1]
    check_alike(one, folders[0], decibels=0.01)
    (alone,), (together,) = (read_json_lines(folder / "poison.jsonl") for folder in (one, folders[0]))
    assert alone["step"] == together["step"] == 4
    assert len(alone["keys"]) == 4
    assert len(together["keys"]) == 2, "those of the process whose loss it was"
    assert set(together["keys"]) < set(alone["keys"])
    for folder in (one, folders[0]):
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] == pytest.approx(0.0005)


def test_another_number_of_processes_goes_on(one: Path, shared_data_dir: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(one, again)
    (again / "checkpoints" / "kept.ckpt").replace(again / "checkpoints" / "last.ckpt")
    without = ["callbacks.keep=null", "callbacks.poison=null"]
    train(tmp_path, shared_data_dir, f"resume={again}", *TWO, *without)
    check_alike(one, again, decibels=0.05)


TORCHRUN = """
import subprocess
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
subprocess_handler.Popen = subprocess.Popen  # forks
from torch.distributed.run import main
main()
"""


def test_torchrun_on_two_machines(one: Path, shared_data_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    words += ["-m", "restora", "train", *SIX, "logger.mode=disabled"]
    words += ["trainer.strategy=ddp", "trainer.devices=1", "trainer.num_nodes=2"]
    places = {"RESTORA_DATA": str(shared_data_dir), "PYTHONPATH": _path()}
    agents = [start_code(TORCHRUN, *words, cwd=tmp_path, **places) for _ in range(2)]
    said = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))  # both agreed on it
    check_alike(one, folder, decibels=0.01)


@pytest.mark.parametrize(
    ("rank", "event", "error"),
    [
        (1, "raise", "process 1: LookupError: this process has a fault of its own"),
        (1, "kill", "process 1: ended by SIGKILL"),
        (0, "kill", None),
    ],
)
def test_a_process_that_fails_ends_the_run(
    rank: int, event: str, error: str | None, shared_data_dir: Path, tmp_path: Path
) -> None:
    fault = [f"+callbacks.fault={{_target_:fault_ranks.AtRank,rank:{rank},step:2,event:{event}}}"]
    words = [*SIX, *TWO, *fault, "logger.mode=disabled", f"hydra.run.dir={tmp_path}/run"]
    started = time.monotonic()
    places = {"RESTORA_DATA": str(shared_data_dir), "PYTHONPATH": _path()}
    done = run_restora("train", *words, merged=True, cwd=tmp_path, **places)
    until = time.monotonic() + 5
    assert done.returncode != 0
    assert time.monotonic() - started < 60
    if error is not None:
        assert record(tmp_path / "run")["status"] == "failed"
        assert record(tmp_path / "run")["error"].startswith(error)
        assert ("in on_train_batch_end" in done.stdout) == (event == "raise")  # that process's own traceback
    while left := left_behind(tmp_path):
        assert time.monotonic() < until, left
        time.sleep(0.05)
