"""Strangers' weights: every wrapping opens, nothing in a file is executed, and a misfit names what
would fit.
"""

import argparse
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from restora import registry
from restora.networks.carn import CARN
from restora.networks.dncnn import DnCNN, FDnCNN
from restora.networks.edsr import EDSR
from restora.networks.recognition import recognise
from restora.networks.weights import (
    WeightsError,
    load_weights,
    network_from_weights,
    read_tensors,
)

Wrapped = dict[str, Any]


def small(**arguments: Any) -> DnCNN:
    return DnCNN(**{"in_channels": 1, "depth": 4, "channels": 6} | arguments)


def prefixed(state: Wrapped, prefix: str) -> Wrapped:
    return {prefix + name: value for name, value in state.items()}


WRAPPERS = {
    "bare": lambda state, other: state,
    "params": lambda state, other: {"params": state},
    "params_ema": lambda state, other: {"params": other, "params_ema": state},
    "state_dict": lambda state, other: {"state_dict": state, "epoch": 3, "best": np.float64(29.2)},
    "model": lambda state, other: {"model": state, "args": argparse.Namespace(lr=1e-4)},
    "module": lambda state, other: prefixed(state, "module."),
    "state_dict of module": lambda state, other: {"state_dict": prefixed(state, "module.")},
    "lightning": lambda state, other: {
        "state_dict": prefixed(state, "net.") | {"loss.vgg.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    },
    "own checkpoint": lambda state, other: {
        "state_dict": prefixed(other, "network.") | prefixed(state, "ema."),
        "restora": {"format": 1},
    },
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapping_opens(wrapper: str, tmp_path: Path) -> None:
    source, other = small(), small()
    path = tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper](source.state_dict(), other.state_dict()), path)
    target = small()
    load_weights(target, path)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_safetensors_and_half_precision_open(tmp_path: Path) -> None:
    source, target = small(), small()
    half = {name: value.half() for name, value in prefixed(source.state_dict(), "params.").items()}
    save_file(half, tmp_path / "weights.safetensors")
    load_weights(target, tmp_path / "weights.safetensors")
    torch.testing.assert_close(target.model[0].weight, source.model[0].weight, atol=1e-3, rtol=1e-3)
    assert target.model[0].weight.dtype == torch.float32


class _Malicious:
    """What a pickle can do: run anything when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    torch.save({"state_dict": small().state_dict(), "extra": _Malicious(mark)}, path)
    with pytest.raises(WeightsError, match="never does for a weights file: ask its author for a state dict"):
        load_weights(small(), path)
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"restora\.networks\.dncnn\.DnCNN"):
        load_weights(small(), tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_damaged_file_is_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=str(path)):
        read_tensors(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.SAFETENSORS", "weights"])
def test_safetensors_are_known_by_their_bytes(name: str, tmp_path: Path) -> None:
    state = small().state_dict()
    save_file(state, tmp_path / name)
    assert read_tensors(tmp_path / name).keys() == state.keys()


def test_a_torch_file_may_be_called_safetensors(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "weights.safetensors")
    assert read_tensors(tmp_path / "weights.safetensors").keys() == small().state_dict().keys()


def test_the_parts_of_a_list_are_read(tmp_path: Path) -> None:
    network = small()
    torch.save([{"epoch": 3}, network.state_dict()], tmp_path / "weights.pth")
    other = small()
    load_weights(other, tmp_path / "weights.pth")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), network.parameters(), strict=True))


def test_an_archive_with_weights_in_it_is_to_be_unpacked(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.write(tmp_path / "weights.pth", "weights.pth")
    with pytest.raises(WeightsError, match=r"an archive that holds weights\.pth: unpack it"):
        read_tensors(tmp_path / "weights.zip")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = small().state_dict()
    state["model.2.bias"][3] = value
    torch.save(state, tmp_path / "weights.pth")
    for load in (partial(load_weights, small()), recognise):
        with pytest.raises(WeightsError, match=r"not finite in model\.2\.bias.*earlier checkpoint"):
            load(tmp_path / "weights.pth")


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_tensors(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_tensors(tmp_path / "empty.pth")


def test_a_misfit_lists_names_and_shapes_and_what_would_fit(tmp_path: Path) -> None:
    path = tmp_path / "dncnn_color_blind.pth"
    torch.save(DnCNN(in_channels=3, depth=20, channels=6, batch_norm=False).state_dict(), path)
    with pytest.raises(WeightsError) as caught:
        load_weights(DnCNN(channels=6), path)
    message = str(caught.value)
    assert "model.0.weight is (6, 3, 3, 3) in the file, (6, 1, 3, 3) in the network" in message
    assert "missing: model.3.running_mean" in message or "model.3.weight" in message
    assert (
        "they would fit network.in_channels=3 network.depth=20 network.channels=6 network.batch_norm=false"
        in message
    )


def test_weights_of_another_network_are_recognised(tmp_path: Path) -> None:
    torch.save(CARN(scale=2, channels=8, groups=4).state_dict(), tmp_path / "carn.pth")
    expected = (
        "weights of CARN with network.in_channels=3 network.channels=8 network.groups=4 network.scale=2"
    )
    with pytest.raises(WeightsError, match=expected):
        load_weights(small(), tmp_path / "carn.pth")


@pytest.mark.slow
def test_weights_of_no_known_network_say_so(tmp_path: Path) -> None:
    torch.save({"mystery.weight": torch.ones(2, 2)}, tmp_path / "mystery.pth")
    with pytest.raises(WeightsError, match="no network of restora recognises them"):
        load_weights(small(), tmp_path / "mystery.pth")


def test_arguments_follow_the_weights_unless_the_user_chose_them(tmp_path: Path) -> None:
    path = tmp_path / "dncnn.pth"
    source = DnCNN(in_channels=3, depth=5, channels=6, batch_norm=False)
    torch.save({"params": source.state_dict()}, path)
    network, changed = network_from_weights(DnCNN, {"in_channels": 1, "depth": 5, "channels": 6}, path)
    assert changed == {"in_channels": 3, "batch_norm": False, "bias": True}
    x = torch.rand(1, 3, 9, 8)
    assert torch.equal(network(x), source(x))
    with pytest.raises(WeightsError, match=r"network\.in_channels=3"):
        network_from_weights(DnCNN, {"in_channels": 1}, path, chosen=("in_channels",))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_checkpoint_for_several_scales_gives_the_one_wanted(scale: int, tmp_path: Path) -> None:
    """CARN's authors keep three upsamplers on one trunk."""
    sources = {s: CARN(scale=s, channels=8, groups=4) for s in (2, 3, 4)}
    state: Wrapped = dict(sources[scale].state_dict())
    for s, source in sources.items():
        for name, value in source.state_dict().items():
            if name.startswith("upsample.up."):
                state[name.replace("upsample.up.", f"upsample.up{s}.")] = value
    state = {name: value for name, value in state.items() if not name.startswith("upsample.up.")}
    torch.save(state, tmp_path / "carn_m.pth")
    network, changed = network_from_weights(
        CARN, {"scale": scale, "in_channels": 3, "channels": 64, "groups": 4}, tmp_path / "carn_m.pth"
    )
    assert changed == {"channels": 8}
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(network(x), sources[scale](x))


def test_basicsr_names_of_edsr_open(tmp_path: Path) -> None:
    source = EDSR(scale=4, channels=8, blocks=2)
    state = source.state_dict()
    theirs = {"conv_first": "head.0", "conv_after_body": "body.2", "conv_last": "tail.1"}
    theirs |= {f"upsample.{i}": f"tail.0.{i}" for i in (0, 2)}
    theirs |= {f"body.{i}.conv{j + 1}": f"body.{i}.body.{2 * j}" for i in (0, 1) for j in (0, 1)}
    renamed = {f"{a}.{kind}": state[f"{b}.{kind}"] for a, b in theirs.items() for kind in ("weight", "bias")}
    torch.save({"params": renamed}, tmp_path / "edsr.pth")
    network, changed = network_from_weights(EDSR, {"scale": 4, "channels": 64}, tmp_path / "edsr.pth")
    assert changed == {"in_channels": 3, "channels": 8, "blocks": 2}
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(network(x), source(x))


def test_no_two_networks_claim_the_same_weights() -> None:
    """What the misfit message suggests is one network, not a list of look-alikes."""
    for source in (small(), FDnCNN(depth=4, channels=6), CARN(channels=8), EDSR(channels=8, blocks=1)):
        state = source.state_dict()
        claims = [
            cls
            for cls in registry.classes("network").values()
            if getattr(cls, "infer_arguments", lambda _: None)(state)
        ]
        assert claims == [type(source)]
