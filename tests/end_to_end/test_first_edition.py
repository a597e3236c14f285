"""Files that the version before wrote go on being read: run folders, checkpoints, model folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from restora.artifact.restorer import Restorer
from restora.artifact.sources import open_source
from restora.cli import main
from restora.composing.first_edition import renamed, renamed_key

FILES = Path(__file__).resolve().parents[1] / "first_edition"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FILES / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_goes_on_as_it_would_have(run: Path, shared_data_dir: Path) -> None:
    """Also one whose command line set keys that are called otherwise now."""
    words = ["trainer.max_steps=7", "data.steps_per_epoch=3", f"data_dir={shared_data_dir}"]
    assert main(["train", f"resume={run}", *words]) == 0
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    expected = load_file(FILES / "after_7_steps.safetensors")
    for name, value in expected.items():
        now = f"objectives.adversarial.{name}" if name.startswith("discriminator.") else name
        torch.testing.assert_close(checkpoint["state_dict"][now], value, atol=1e-5, rtol=1e-4)
    assert checkpoint["restora"]["network"]["name"] == "msrresnet"


def test_what_reads_runs_reads_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = open_source(run).network
    assert type(network).__name__ == "MSRResNet"
    assert main(["export", str(run), "model", "--no-onnx"]) == 0
    restorer = Restorer.load("model")
    photo = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(restorer(photo), Restorer.load(FILES / "model")(photo), atol=1e-6, rtol=0)
    assert json.loads(Path("model/model.json").read_text())["network"]["name"] == "msrresnet"
    assert main(["report", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "noise" in shown.lower()
    assert "restora.degradations" not in shown


def test_old_keys_are_answered_with_the_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "family=unet", "family.hole_weight=6"]) == 2
    assert "objective.masked.hole_weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "now"),
    [
        (["family.adversarial_weight=1"], ["objective.adversarial.weight=1"]),
        (
            ["discriminator@family.discriminator=patch", "family.discriminator.norm=none"],
            [
                "discriminator@objective.adversarial.discriminator=patch",
                "objective.adversarial.discriminator.norm=none",
            ],
        ),
        (["family.hole_weight=6"], ["objective=masked", "objective.masked.hole_weight=6"]),
        (
            ["family.scale_weights=[1,1]", "family.hole_weight=6"],
            [
                "objective=multi_scale",
                "objective.multi_scale.scale_weights=[1,1]",
                "objective.multi_scale.hole_weight=6",
            ],
        ),
        (["family.optimizer.lr=1"], ["family.optimizer.lr=1"]),
    ],
)
def test_overrides_are_renamed(old: list[str], now: list[str]) -> None:
    assert renamed(old) == now
    assert renamed_key("seed") is None
