"""Low-rank adapters: nothing changes at first, they alone learn, and merging them gives the same network."""

from typing import Any

import pytest
import torch

from restora.config import build, parts
from restora.networks.adapters import adapt, merged, options_of, without_adapters

NODES = parts("network")
SMALL = [
    f"{name}_small" for name in ("restormer", "swinir_denoise", "uformer", "hat", "nafnet_mdta", "dncnn")
]


@pytest.mark.parametrize("name", SMALL)
def test_adapters_start_at_nothing_learn_alone_and_merge(name: str) -> None:
    plain, network = (build(dict(NODES[name]), "network").eval() for _ in range(2))
    with torch.no_grad():
        for value in plain.parameters():
            value.add_(0.05 * torch.randn_like(value))  # what starts at 0 would hide what is behind it
    network.load_state_dict(plain.state_dict())
    names = adapt(network, rank=2)
    assert names
    x = torch.rand(1, network.in_channels, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x), atol=1e-6, rtol=0)
    trained = {key for key, value in network.named_parameters() if value.requires_grad}
    assert {key.rpartition(".")[2] for key in trained} == {"A", "B"}
    assert len(trained) == 2 * len(names)
    assert sum(network.get_parameter(key).numel() for key in trained) < 0.5 * sum(
        value.numel() for value in plain.parameters()
    )
    for key, value in network.named_parameters():
        if key in trained:
            torch.nn.init.normal_(value, std=0.05)
    network(x).square().mean().backward()
    assert all(network.get_parameter(key).grad.abs().sum() > 0 for key in trained)
    plain.load_state_dict(merged(network.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), atol=1e-5, rtol=1e-4)


def test_a_rank_above_every_weight_is_refused() -> None:
    network = build(dict(NODES["dncnn_small"]), "network")
    with pytest.raises(ValueError, match="set a lower rank"):
        adapt(network, rank=100_000)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs a value for family.adapters.rank"),
        ({"names": ["model.2"]}, "needs a value for family.adapters.rank"),
        ({"rank": 2, "name": ["model.2"]}, "family.adapters.name=.*did you mean names"),
        ({"rank": True}, "family.adapters.rank=true: expected a whole number"),
        ({"rank": 2, "names": "model.2"}, "family.adapters.names=model.2: expected a list of names"),
    ],
)
def test_adapters_in_a_configuration_are_checked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options_of(given)
    assert options_of({"rank": 2, "names": ["model.2"]}) == {"rank": 2, "names": ["model.2"]}


def test_a_copy_without_adapters_is_the_same_network_and_leaves_the_original() -> None:
    network = build(dict(NODES["dncnn_small"]), "network").eval()
    adapt(network, rank=2)
    for module in network.modules():
        if hasattr(module, "B"):
            torch.nn.init.normal_(module.B, std=0.05)
    x = torch.rand(1, network.in_channels, 16, 16)
    for _ in range(2):
        plain = without_adapters(network)
        assert type(plain.model[0]) is torch.nn.Conv2d
        with torch.no_grad():
            torch.testing.assert_close(plain(x), network(x), atol=1e-6, rtol=0)
