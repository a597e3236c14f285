"""What is said of weights that a run starts from."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from safetensors.torch import save_file

from restora.artifact.sources import open_source
from restora.networks.dncnn import DnCNN
from restora.training.initial import initial_weights


@pytest.mark.parametrize(("channels", "depth", "said"), [(8, 4, False), (8, 5, False), (6, 4, True)])
def test_weights_of_which_hardly_any_fit_are_said(
    tmp_path: Path, channels: int, depth: int, said: bool
) -> None:
    source = DnCNN(in_channels=3, channels=8, depth=4, batch_norm=False)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    config = OmegaConf.create(
        {"init": {"source": str(tmp_path / "weights.safetensors"), "skip": [], "strict": False}}
    )
    network = DnCNN(in_channels=3, channels=channels, depth=depth, batch_norm=False)
    found = initial_weights(config, network)
    assert found is not None
    assert found.transfer.taken
    assert ("almost from scratch" in found.lines()[-1]) == said
    assert ("network.channels=8" in found.lines()[-1]) == said


def test_a_source_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every shell expands `init=~/…`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    network = DnCNN(in_channels=3, channels=8, depth=4, batch_norm=False)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    config = OmegaConf.create({"init": {"source": "~/weights.safetensors", "skip": [], "strict": True}})
    assert initial_weights(config, network) is not None
    assert open_source("~/weights.safetensors").name == "dncnn"
