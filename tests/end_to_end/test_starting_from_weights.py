"""`init=SOURCE`: what is taken of a source and what is said of the rest; freezing and rates by name."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import UNLOGGED

from restora.artifact.restorer import Restorer
from restora.cli import main

SMALL = [
    *UNLOGGED,
    "network=msrresnet_small",
    "network.scale=1",
    "network.channels=8",
    "network.blocks=2",
    "data.patch_size=32",
    "data.batch_size=2",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
]
STILL = ["family.optimizer.lr=0"]
"""What is trained at a rate of 0 is what it started from."""


@pytest.fixture(scope="module")
def data(shared_data_dir: Path) -> Path:
    return shared_data_dir


def train(folder: Path, data: Path, *words: str) -> dict[str, torch.Tensor]:
    assert main(["train", *SMALL, f"data_dir={data}", f"hydra.run.dir={folder}", *words]) == 0
    return state(folder)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder, data)
    return folder


@pytest.mark.parametrize("kind", ["run", "checkpoint", "model folder", "weights file"])
def test_a_run_starts_from_any_source(kind: str, trained: Path, data: Path, tmp_path: Path) -> None:
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    wanted = {name: best[f"ema.{name}"] for name in (n.removeprefix("ema.") for n in best if "ema." in n)}
    source, file = trained, trained / "checkpoints" / "best.ckpt"
    if kind == "checkpoint":
        source = file
    elif kind == "model folder":
        source = tmp_path / "model"
        file = source / "weights.safetensors"
        assert main(["export", str(trained), str(source), "--no-onnx"]) == 0
    elif kind == "weights file":
        source = file = tmp_path / "weights.safetensors"
        save_file({f"params_ema.{name}": value.contiguous() for name, value in wanted.items()}, file)
    now = train(tmp_path / "run", data, f"init={source}", "seed=5", *STILL)
    for name, value in wanted.items():
        if not name.endswith("num_batches_tracked") and "running" not in name:
            torch.testing.assert_close(now[f"network.{name}"], value, atol=0, rtol=0)
            torch.testing.assert_close(now[f"ema.{name}"], value, atol=1e-7, rtol=0)
    said = json.loads((tmp_path / "run" / "run.json").read_text())["init"]
    assert said["source"] == str(source)
    assert said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert said["taken"] == said["of"] > 0
    assert not [kind for kind in ("other_shape", "missing", "unused", "skipped") if said[kind]]


def test_a_relative_gives_what_fits_and_says_what_does_not(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block more, grey instead of colour, the first block left out on request."""
    words = ["network.blocks=3", "network.in_channels=1", "data.channels=gray", "init.skip=[recon_trunk.0]"]
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    now = train(tmp_path / "run", data, f"init={trained}", *words, "seed=5", *STILL)
    out = " ".join(capsys.readouterr().err.split())
    said = json.loads((tmp_path / "run" / "run.json").read_text())["init"]
    assert set(said["other_shape"]) == {"conv_first.weight", "conv_last.weight", "conv_last.bias"}
    assert said["other_shape"]["conv_first.weight"] == [[8, 3, 3, 3], [8, 1, 3, 3]]
    assert {name.rpartition(".conv")[0] for name in said["missing"]} == {"recon_trunk.2"}
    assert {name.rpartition(".conv")[0] for name in said["skipped"]} == {"recon_trunk.0"}
    assert f"{said['taken']} of {said['of']} tensors" in out
    for words_said in ("of another shape: conv_first.weight", "not in the source", "4 skipped"):
        assert words_said in out
    for name in ("conv_first.bias", "recon_trunk.1.conv1.weight", "HRconv.weight"):
        assert torch.equal(now[f"network.{name}"], best[f"ema.{name}"])
        assert torch.equal(now[f"ema.{name}"], now[f"network.{name}"])
    assert not torch.equal(now["network.recon_trunk.0.conv1.weight"], best["ema.recon_trunk.0.conv1.weight"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init.strict=true", "network.blocks=3"], "does not fit MSRResNet whole"),
        (["init.skip=[nowhere]"], "init.skip: 'nowhere' fits none"),
        (["network=unet_small"], "they look like weights of MSRResNet with network."),
        (["init.skp=1"], "init.skp"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_training(
    words: list[str], said: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in SMALL if not ("unet" in words[0] and word.startswith("network"))]
    assert main(["train", *small, f"init={trained}", *words, f"hydra.run.dir={tmp_path}/run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_source_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SMALL, "init=nothing.pth"]) == 2
    assert "there is no nothing.pth" in capsys.readouterr().err
    assert main(["train", "experiments=super_resolution/srgan", "data=sample", "trainer=cpu"]) == 2
    assert "a run of experiments=super_resolution/srresnet" in " ".join(capsys.readouterr().err.split())
    assert main(["train", *SMALL, "init.strict=true"]) == 2
    assert "set init=SOURCE too" in capsys.readouterr().err


def test_a_run_goes_on_without_its_source_and_keeps_where_it_began(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained, source)
    train(folder, data, f"init={source}")
    shutil.rmtree(source)
    assert main(["train", f"resume={folder}", "trainer.max_steps=3"]) == 0
    record = json.loads((folder / "run.json").read_text())
    assert record["init"]["source"] == str(source)
    assert record["cost"]["steps"] == 3
    assert main(["train", f"resume={folder}", f"init={trained}", "trainer.max_steps=4"]) == 2
    assert "its starting weights" in capsys.readouterr().err
    model = tmp_path / "model"
    assert main(["export", str(folder), str(model), "--no-onnx"]) == 0
    card = (model / "README.md").read_text()
    assert f"Training started from `source` ({record['init']['taken']} of" in card
    assert record["init"]["sha256"] in card


def test_part_of_a_network_is_frozen_and_part_of_it_learns_slowly(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    start = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    first, middle, last = "conv_first", "HRconv", "conv_last"
    words = ["family.optimizer._target_=sgd", "family.optimizer.lr=0.01", "schedule=constant"]
    words += ["trainer.max_steps=1", "trainer.val_check_interval=1", f"init={trained}"]
    plain = train(tmp_path / "plain", data, *words)
    chosen = [f"family.freeze=[{first}]", f"family.rate_factors={{{last}: 0.1}}"]
    now = train(tmp_path / "part", data, *words, *chosen)

    def moved(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return state[f"network.{name}"] - start[f"ema.{name}"]

    assert moved(plain, f"{first}.weight").abs().max() > 0
    assert moved(now, f"{first}.weight").abs().max() == 0
    torch.testing.assert_close(
        moved(now, f"{last}.weight"), 0.1 * moved(plain, f"{last}.weight"), atol=1e-7, rtol=1e-2
    )
    torch.testing.assert_close(
        moved(now, f"{middle}.weight"), moved(plain, f"{middle}.weight"), atol=1e-7, rtol=1e-3
    )


def test_adapters_learn_beside_weights_that_stay_and_are_merged_by_export(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    words = [f"init={trained}", "family.adapters={rank: 2, names: [recon_trunk]}"]
    learnt = train(tmp_path / "run", data, *words)
    place = ".parametrizations.weight"
    kept = {name.replace(f"{place}.original", ".weight"): value for name, value in learnt.items()}
    for name in start:
        assert torch.equal(kept[name.replace("ema.", "network.")], start[name.replace("network.", "ema.")])
    adapted = {name.partition(place)[0] for name in learnt if place in name}
    assert len(adapted) == 2 * 4  # two convolutions in each of two blocks, and their averages
    assert all(value.abs().sum() > 0 for name, value in learnt.items() if name.endswith(".B"))

    assert main(["train", f"resume={tmp_path / 'run'}", "trainer.max_steps=4"]) == 0
    resumed = state(tmp_path / "run")
    assert any(not torch.equal(resumed[name], learnt[name]) for name in learnt if name.endswith(".B"))

    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model"), "--no-onnx"]) == 0
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    exported = Restorer.load(tmp_path / "model").network.state_dict()
    assert not [name for name in exported if "parametrizations" in name]
    for layer in (name for name in adapted if name.startswith("ema.")):
        original, a, b = (best[f"{layer}{place}.{part}"] for part in ("original", "0.A", "0.B"))
        weight = exported[f"{layer.removeprefix('ema.')}.weight"]
        torch.testing.assert_close(weight, original + (b @ a).view(original.shape), atol=1e-6, rtol=0)

    capsys.readouterr()
    for refused, said in (
        (["family.adapters={rank: 2}"], "add init=SOURCE"),
        ([*words[:1], "family.adapters={rank: 2, names: [tail]}"], "family.adapters.names"),
        ([*words[:1], "family.adapters={rank: 0}"], "whole number of 1 or more"),
        ([*words, "family.freeze=[conv_first]"], "leave family.freeze"),
        ([*words[:1], "family.freeze=conv_first"], "family.freeze=conv_first: expected a list of names"),
        ([*words[:1], "family.freeze=[0]"], "family.freeze=[0]: expected a list of names"),
    ):
        assert main(["train", *SMALL, *refused, f"hydra.run.dir={tmp_path / 'none'}"]) == 2
        assert said in capsys.readouterr().err


def test_the_weights_that_it_started_from_are_scored(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(folder, data, f"init={trained}", *STILL)
    made = json.loads((folder / "run.json").read_text())
    assert made["init"]["scores"]["val/psnr"] == pytest.approx(made["metrics"]["best"]["val/psnr"], abs=1e-4)
    said = " ".join(capsys.readouterr().err.split())
    assert f"dB with the weights of {trained}" in said
    assert "which is no better" in said
    other = tmp_path / "other"
    train(other, data, f"init={trained}", "init.skip=[conv_last]")
    assert "scores" not in json.loads((other / "run.json").read_text())["init"]
