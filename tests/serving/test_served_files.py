"""Whatever holds a trained network can be served, with words for people."""

from pathlib import Path

import pytest
import torch
from run_folders import tiny_network, write_checkpoint, write_run

from restora.artifact.restorer import Restorer
from restora.serving.models import load_models


def test_folders_runs_checkpoints_and_weights_become_restorers(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    network = tiny_network()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    run = write_run(tmp_path / "run")
    checkpoint = write_checkpoint(tmp_path / "last.ckpt", network)
    sources = [model_folders["denoise"], run, checkpoint, tmp_path / "net.pth"]
    models = load_models([str(source) for source in sources], device="cpu", precision="float32", tile=64)
    assert len(models) == 4
    assert {model.words[0] for model in models.values()} == {"Grainy"}
    x = torch.rand(1, network.in_channels, 20, 30)
    expected = network(x).clamp(0, 1)
    for model in list(models.values())[-2:]:
        torch.testing.assert_close(model.restorer(x), expected, atol=1e-4, rtol=0)


def test_what_enlarges_says_how_much(model_folders: dict[str, Path]) -> None:
    folder = str(model_folders["upscale"])
    models = load_models([folder, folder], device="cpu", precision="float32", tile=64)
    assert list(models) == ["upscale", "upscale-2"]
    assert models["upscale"].words[1].endswith("2 times as wide and as high.")


def test_methods_are_not_served_and_what_does_them_is_named() -> None:
    with pytest.raises(ValueError, match="restora restore method:zs_n2n"):
        load_models(["method:zs_n2n"], device="cpu", precision="float32", tile=64)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"no weights")
    for source in (tmp_path / "a.pth", tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match=r"."):
            Restorer.load(str(source), device="cpu", precision="float32", tile=64)
