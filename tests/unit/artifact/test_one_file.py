"""One file of a model folder is read with what the folder says of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from restora.artifact.card import _use
from restora.artifact.model_folder import load_model_folder, read_description, save_weights
from restora.artifact.sources import open_source
from restora.zoo.index import folder_of


def test_weights_in_a_model_folder_have_the_arguments_that_it_states(tmp_path: Path) -> None:
    """DRUNet's `residual` shows in no weight: read alone, they would be of another network."""
    folder = shutil.copytree(folder_of("zoo:denoise"), tmp_path / "model")
    whole, one = open_source(folder), open_source(folder / "weights.safetensors")
    assert whole.arguments == one.arguments
    assert whole.arguments["residual"]
    photo, level = torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    with torch.no_grad():
        assert torch.equal(whole.network(photo, level), one.network(photo, level))
    assert one.task == "denoise"


def test_the_card_says_what_the_condition_of_a_graph_is() -> None:
    for name, said in (("denoise", "σ/255"), ("inpaint", "1 where the pixel is known"), ("photo", None)):
        text = _use(read_description(folder_of(f"zoo:{name}")), with_onnx=True)
        assert ("`condition` is" in text) == (said is not None)
        assert said is None or said in text


def written(folder: Path, **changes: object) -> Path:
    """A file of weights as exported, with other statements."""
    description, network = load_model_folder(folder_of("zoo:denoise"))
    folder.mkdir()
    save_weights(network, folder, replace(description, **changes))
    return folder / "weights.safetensors"


def test_weights_alone_state_the_arguments_that_they_do_not_show(tmp_path: Path) -> None:
    whole, alone = open_source("zoo:denoise"), open_source(written(tmp_path / "alone"))
    assert alone.arguments == whole.arguments
    assert alone.task == "denoise"
    assert "network.residual=true" in alone.said
    photo, level = torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    with torch.no_grad():
        assert torch.equal(whole.network(photo, level), alone.network(photo, level))


def test_what_weights_state_is_not_trusted(tmp_path: Path) -> None:
    huge = {"name": "drunet", "arguments": {"channels": [64, 10**9]}}
    path = written(tmp_path / "huge", network=huge)
    with pytest.raises(ValueError, match=r"weights\.safetensors: DRUNet: channels is 1000000000"):
        open_source(path)
    path = written(tmp_path / "own", network={"name": "lab_net", "arguments": {}}, plugins=["mylab"])
    with pytest.raises(
        ValueError, match=r"weights\.safetensors: the network 'lab_net' is from a plugin.*mylab"
    ):
        open_source(path)
    path = written(tmp_path / "wrong", network=["drunet"])
    assert "states" not in open_source(path).said  # recognised by its shapes, as those of others
