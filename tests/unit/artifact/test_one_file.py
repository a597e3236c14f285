"""One file of a model folder is read with what the folder says of it."""

import shutil
from pathlib import Path

import torch

from restora.artifact.card import _use
from restora.artifact.model_folder import read_description
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
