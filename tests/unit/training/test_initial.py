"""What is said of weights that a run starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from restora.artifact.sources import open_source
from restora.config import ConfigError
from restora.networks.dncnn import DnCNN
from restora.networks.drunet import DRUNet
from restora.training.initial import Initial, initial_weights


@pytest.mark.parametrize(("channels", "depth", "said"), [(8, 4, False), (8, 5, False), (6, 4, True)])
def test_weights_of_which_hardly_any_fit_are_said(
    tmp_path: Path, channels: int, depth: int, said: bool
) -> None:
    source = DnCNN(in_channels=3, channels=8, depth=4, batch_norm=False)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    arguments = {"in_channels": 3, "channels": channels, "depth": depth, "batch_norm": False}
    config = OmegaConf.create(
        {
            "init": {"source": str(tmp_path / "weights.safetensors"), "skip": [], "strict": False},
            "network": {"_target_": "dncnn", **arguments},
        }
    )
    network = DnCNN(**arguments)
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
    init = {"source": "~/weights.safetensors", "skip": [], "strict": True}
    config = OmegaConf.create({"init": init, "network": {"_target_": "dncnn"}})
    assert initial_weights(config, network) is not None
    assert open_source("~/weights.safetensors").name == "dncnn"


def test_weights_alone_show_what_they_were_made_with(tmp_path: Path) -> None:
    """Without batch norm the same names are those of other layers."""
    source = DnCNN(in_channels=1, channels=8, depth=7, batch_norm=False)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    arguments = {"in_channels": 3, "channels": 8, "depth": 7, "batch_norm": True}
    init = {"source": str(tmp_path / "weights.safetensors"), "skip": [], "strict": False}
    config = OmegaConf.create({"init": init, "network": {"_target_": "dncnn", **arguments}})
    found = initial_weights(config, DnCNN(**arguments))
    assert found is not None
    assert "in_channels is 1 there, 3 here, batch_norm is false there, true here" in "\n".join(found.lines())


def of_half_minute(changes: dict[str, Any], family: dict[str, Any] | None = None) -> Initial:
    """What a network takes of zoo:half_minute, from whose arguments its own differ by `changes`."""
    arguments = {**open_source("zoo:half_minute").arguments, **changes}
    init = {"source": "zoo:half_minute", "skip": [], "strict": False}
    node = {"_target_": "drunet", **arguments}
    config = OmegaConf.create({"init": init, "network": node, "family": family or {}})
    found = initial_weights(config, DRUNet(**arguments))
    assert found is not None
    return found


def test_weights_that_fit_but_are_used_otherwise_are_said() -> None:
    assert len(of_half_minute({}).lines()) == 1
    found = of_half_minute({"padding": "replicate"})
    assert found.transfer.complete
    line = "other arguments: padding is reflect there, replicate here (as there: network.padding=reflect)"
    assert found.lines()[1:] == [f"  {line}"]
    found = of_half_minute({"residual": True})  # its file does not have the argument: it has the default
    assert found.as_dict()["other_arguments"] == {"residual": [False, True]}


def test_nothing_is_frozen_that_does_not_come_from_the_source_unsaid() -> None:
    assert of_half_minute({}, {"adapters": {"rank": 2}, "freeze": []}).hints == ()
    with pytest.raises(
        ConfigError, match=r"of another shape: m_head\.weight .* whole, or family.adapters=null"
    ):
        of_half_minute({"in_channels": 3}, {"adapters": {"rank": 2}})
    with pytest.raises(ConfigError, match="1 not in the source: residual_output.*whole, or family"):
        of_half_minute({"residual": True}, {"adapters": {"rank": 2}})
    (hint,) = of_half_minute({"in_channels": 3}, {"freeze": ["m_head", "m_body"]}).hints
    assert hint == "family.freeze keeps as initialised, not from the source: m_head.weight"


def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path) -> None:
    """Unless they are not taken."""
    network = DnCNN(in_channels=3, channels=8, depth=4, batch_norm=False)
    state = network.state_dict() | {"model.2.weight": torch.full((8, 8, 3, 3), torch.nan)}
    save_file(state, tmp_path / "weights.safetensors")
    init = {"source": str(tmp_path / "weights.safetensors"), "skip": [], "strict": False}
    config = OmegaConf.create({"init": init, "network": {"_target_": "dncnn"}})
    with pytest.raises(ValueError, match=r"not finite in model\.2\.weight"):
        initial_weights(config, network)
    config.init.skip = ["model.2"]
    assert initial_weights(config, network) is not None


def test_what_takes_nothing_is_refused(tmp_path: Path) -> None:
    network = DnCNN(in_channels=3, channels=8, depth=4, batch_norm=False)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    init = {"source": str(tmp_path / "weights.safetensors"), "skip": ["*"], "strict": False}
    config = OmegaConf.create({"init": init, "network": {"_target_": "dncnn"}})
    with pytest.raises(ConfigError, match=r"init\.skip=\['\*'\] leaves nothing to take"):
        initial_weights(config, network)
