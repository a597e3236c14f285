"""A weights file alone tells its network: every network, any wrapping, and stacks under other names."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from restora import registry
from restora.artifact.sources import open_source
from restora.cli import main
from restora.config import build, compose, parts
from restora.networks.dncnn import DnCNN, FDnCNN
from restora.networks.nafnet import NAFNet
from restora.networks.recognition import recognise
from restora.networks.vdsr import VDSR
from restora.networks.weights import WeightsError, load_weights

NODES = {name: node for name, node in parts("network").items() if name.endswith("_small")}
UNTOLD = {
    "upsampling",
    "stride",
    "residual_scale",
    "rgb_range",
    "residual",
    "heads",
    "dropout",
    "drop_path",
    "round_8bit",
}
"""Arguments that leave no trace in the weights."""


def test_an_ircnn_is_one_of_two_networks(tmp_path: Path) -> None:
    """A DnCNN of seven convolutions has the same names and shapes."""
    network = build(compose("train", ["network=ircnn_small"]).network, "network")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"dncnn and ircnn: name one"):
        recognise(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", [name for name in NODES if name != "ircnn_small"])
@pytest.mark.slow
def test_every_network_is_recognised_from_its_weights(name: str, tmp_path: Path) -> None:
    node = NODES[name]
    network = build(dict(node), "network")
    path = tmp_path / "weights.pth"
    torch.save({"params_ema": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    found = recognise(path)
    assert found.name == node["_target_"]
    assert "module." in found.said
    for key, value in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], value), key
    for key, value in found.arguments.items():
        if key not in UNTOLD and key in node:
            assert [value] == [node[key]] or list(value) == list(node[key]), key


def test_every_network_can_tell_its_arguments() -> None:
    silent = [n for n, cls in registry.classes("network").items() if not hasattr(cls, "infer_arguments")]
    assert not silent


class Layer(nn.Module):
    """A convolution with its norm, as re-implementations nest them."""

    def __init__(self, before: int, after: int, *, norm: bool, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=bias)
        if norm:
            self.bn = nn.BatchNorm2d(after)


def stack(style: str, *, channels: int = 1, width: int = 6, depth: int = 5, bias: bool = False) -> nn.Module:
    """DnCNN as others write it."""
    if style == "nested":
        layers = [Layer(channels, width, norm=False, bias=True)]
        layers += [Layer(width, width, norm=True, bias=bias) for _ in range(depth - 2)]
        return nn.Sequential(OrderedDict(body=nn.ModuleList(layers), out=nn.Conv2d(width, channels, 3)))
    flat: list[nn.Module] = [nn.Conv2d(channels, width, 3, bias=style == "dncnn"), nn.ReLU()]
    for _ in range(depth - 2):
        flat += [nn.Conv2d(width, width, 3, bias=bias), nn.BatchNorm2d(width), nn.ReLU()]
    flat.append(nn.Conv2d(width, channels, 3, bias=style == "dncnn"))
    return nn.Sequential(OrderedDict({style: nn.Sequential(*flat)}))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("style", ["dncnn", "nested"])
@pytest.mark.parametrize("wrapper", ["", "module.", "state_dict"])
def test_stacks_under_other_names_are_read_by_their_order(
    style: str, bias: bool, wrapper: str, tmp_path: Path
) -> None:
    other = stack(style, channels=3, bias=bias)
    state: dict[str, Any] = dict(other.state_dict())
    if wrapper == "state_dict":
        state = {"state_dict": state, "epoch": 3}
    else:
        state = {f"{wrapper}{key}": value for key, value in state.items()}
    torch.save(state, tmp_path / "other.pth")
    found = recognise(tmp_path / "other.pth")
    assert found.name == "dncnn"
    assert "order, shapes and roles" in found.said
    assert found.arguments["depth"] == 5
    theirs = [p for p in other.state_dict().values() if p.ndim == 4]
    ours = [p for p in found.network.state_dict().values() if p.ndim == 4]
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    means = [v for k, v in found.network.state_dict().items() if k.endswith("running_mean")]
    assert len(means) == 3


@pytest.mark.slow
def test_what_only_resembles_a_network_is_not_taken_for_it(tmp_path: Path) -> None:
    for number, module in enumerate(
        (
            nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(5, 6, 3), nn.Conv2d(6, 3, 3)),  # no chain
            nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 5), nn.Conv2d(6, 3, 3)),  # other kernels
            nn.Sequential(nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 3, 3)),
            nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
        )
    ):
        torch.save(module.state_dict(), tmp_path / f"{number}.pth")
        with pytest.raises(WeightsError, match="no network of restora recognises"):
            recognise(tmp_path / f"{number}.pth")


def test_a_wrong_network_gets_the_same_help_for_a_wrapped_file(tmp_path: Path) -> None:
    state = VDSR(depth=4, channels=6).state_dict()
    for number, wrapped in enumerate(
        (state, {"state_dict": {f"module.{key}": value for key, value in state.items()}})
    ):
        torch.save(wrapped, tmp_path / f"{number}.pth")
        with pytest.raises(WeightsError, match=r"weights of VDSR with .*network\.depth=4 .*network=vdsr"):
            load_weights(DnCNN(), tmp_path / f"{number}.pth")


def test_where_two_fit_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(DnCNN):
        pass

    monkeypatch.setitem(registry._parts["network"], "twin", Twin)
    torch.save(DnCNN(depth=4, channels=6).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="more than one network, dncnn and twin: name one"):
        recognise(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "network", [FDnCNN(depth=4, channels=6), NAFNet(width=4, encoder_blocks=[1], decoder_blocks=[1])]
)
def test_a_source_may_be_a_bare_file(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = open_source(tmp_path / "w.pth")
    assert type(loaded.network) is type(network)
    assert not loaded.network.training
    assert loaded.degradation is None
    with pytest.raises(ValueError, match="there is no"):
        open_source(tmp_path / "nothing.pth")


def test_commands_take_a_bare_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """restore, export and evaluate, without a word about the network."""
    weights = tmp_path / "w.pth"
    torch.save({"state_dict": DnCNN(in_channels=3, depth=4, channels=6).state_dict()}, weights)
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30), (200, 100, 50)).save(tmp_path / "in" / f"{name}.png")
    assert main(["restore", str(weights), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert main(["export", f"weights={weights}", str(tmp_path / "model"), "--no-onnx"]) == 0
    assert "holds DnCNN: network.in_channels=3 network.depth=4" in capsys.readouterr().out.replace("\n", " ")
    assert main(["restore", str(tmp_path / "model"), str(tmp_path / "in"), str(tmp_path / "again")]) == 0
    for name in "ab":
        first, second = (np.asarray(Image.open(tmp_path / to / f"{name}.png")) for to in ("out", "again"))
        assert np.array_equal(first, second)
    scored = ["benchmark=denoise", "benchmark.sigma=25", f"benchmark.root={tmp_path / 'in'}"]
    assert main(["evaluate", f"weights={weights}", *scored, f"output={tmp_path / 'scores'}"]) == 0
    assert (tmp_path / "scores" / "summary.json").is_file()
