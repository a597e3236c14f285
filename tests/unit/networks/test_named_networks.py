"""Weights that do not show their network, its scale or another argument: it is named, or inferred."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restora.artifact.sources import open_source
from restora.cli import main
from restora.networks.carn import CARN
from restora.networks.dncnn import DnCNN
from restora.networks.espcn import ESPCN
from restora.networks.fsrcnn import FSRCNN
from restora.networks.ircnn import IRCNN, LEVELS
from restora.networks.srcnn import SRCNN
from restora.networks.vdsr import VDSR
from restora.networks.weights import WeightsError
from restora.networks.zs_n2n import ZsN2N


def saved(folder: Path, network: torch.nn.Module, name: str = "w.pth") -> Path:
    torch.save(network.state_dict(), folder / name)
    return folder / name


def interpolating(scale: int) -> FSRCNN:
    """An FSRCNN that enlarges bilinearly: what any training ends near."""
    network = FSRCNN(scale=scale, channels=4, shrunk=2, mappings=1)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim == 4 and not name.startswith("last"):
                value.zero_()[0, 0, value.shape[2] // 2, value.shape[3] // 2] = 1
        ramp = 1 - (torch.arange(9) - 4).abs() / scale
        network.last_part.weight.zero_()[0, 0] = torch.outer(ramp.clamp(min=0), ramp.clamp(min=0))
    return network


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_scale_of_a_trained_deconvolution_is_found(scale: int, tmp_path: Path) -> None:
    network = interpolating(scale).eval()
    loaded = open_source(saved(tmp_path, network))
    assert loaded.network.scale == scale
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded.network(x), network(x))


def test_a_scale_that_weights_do_not_show_is_said_and_may_be_set(tmp_path: Path) -> None:
    file = saved(tmp_path, VDSR(depth=3, channels=4))
    assert "its scale is not in the weights: 2, or set --network vdsr,scale=N" in open_source(file).said
    chosen = open_source(file, network="vdsr,scale=4")
    assert (chosen.network.scale, chosen.description.scale) == (4, 4)
    assert "network.scale=4" in chosen.said


@pytest.mark.parametrize(
    "network",
    [
        SRCNN(luminance=False, channels=(4, 4)),
        VDSR(luminance=False, depth=3, channels=4),
        ESPCN(luminance=False, channels=4, scale=2),
        FSRCNN(luminance=False, channels=4, shrunk=2, mappings=1),
        CARN(scale=1, channels=4),
        ZsN2N(in_channels=1, channels=4),
        ZsN2N(in_channels=3, channels=4),
    ],
    ids=lambda each: f"{type(each).__name__}-{each.in_channels}",
)
def test_colour_and_grey_kinds_are_recognised(network: torch.nn.Module, tmp_path: Path) -> None:
    loaded = open_source(saved(tmp_path, network))
    assert type(loaded.network) is type(network)
    x = torch.rand(1, network.in_channels, 8, 8)  # type: ignore[arg-type]
    assert torch.equal(loaded.network(x), network.eval()(x))


def test_commands_take_the_name_of_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, photo = saved(tmp_path, IRCNN(in_channels=3, channels=4)), tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photo)
    assert main(["restore", str(file), str(photo), str(tmp_path / "b.png")]) != 0
    assert "dncnn and ircnn: name one (--network NAME" in capsys.readouterr().err
    assert main(["restore", str(file), str(photo), str(tmp_path / "b.png"), "--network", "ircnn"]) == 0
    assert "read as IRCNN" in capsys.readouterr().out
    assert main(["export", str(file), str(tmp_path / "model"), "--no-onnx", "--network", "dncnn"]) == 0
    assert isinstance(open_source(tmp_path / "model").network, DnCNN)


def test_wrong_names_of_networks_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, IRCNN(channels=4))
    for words, message in (
        ("ircn", "ircnn"),
        ("vdsr", "do not fit VDSR"),
        ("ircnn,7", "NAME,ARGUMENT=VALUE"),
        ("ircnn,depth=7", "depth"),
        ("ircnn,channels=many", "channels"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(file, network=words)
    with pytest.raises(ValueError, match=r"there is no .*absent\.pth"):
        open_source(tmp_path / "absent.pth", network="ircnn")
    with pytest.raises(ValueError, match="states its network"):
        open_source("zoo:denoise", network="drunet")


def test_a_file_of_sets_for_many_levels_is_explained(tmp_path: Path) -> None:
    sets = {str(number): IRCNN(channels=4).state_dict() for number in range(len(LEVELS))}
    torch.save(sets, tmp_path / "ircnn.pth")
    with pytest.raises(WeightsError, match=r"25 noise levels.*--denoiser"):
        open_source(tmp_path / "ircnn.pth")


def test_a_checkpoint_of_other_code_is_restored_and_exported(tmp_path: Path) -> None:
    """Lightning's, with hyper-parameters of a namespace."""
    weights = {f"net.{name}": value for name, value in DnCNN(depth=3, channels=4).state_dict().items()}
    file = tmp_path / "other.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": argparse.Namespace(lr=0.1)}, file)
    assert isinstance(open_source(file).network, DnCNN)
    assert main(["export", str(file), str(tmp_path / "model"), "--no-onnx"]) == 0
    assert isinstance(open_source(tmp_path / "model").network, DnCNN)
