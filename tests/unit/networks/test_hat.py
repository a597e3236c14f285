"""HAT against spandrel's with the same random weights, and against the paper's counts."""

from typing import Any

import pytest
import torch
from authors_code import check_gradients, check_inferred, randomise, recognised_by_spandrel

from restora.networks.cost import count_parameters
from restora.networks.hat import HAT

TINY: dict[str, Any] = {
    "channels": 12,
    "depths": (2, 1),
    "heads": (2, 3),
    "window": 4,
    "squeeze": 4,
    "drop_path": 0.0,
}
# spandrel takes a branch scale of 0.01: the weights do not tell it
VARIANTS: dict[str, dict[str, Any]] = {
    "scale 2": {"scale": 2, "head_channels": 16},
    "scale 3": {"scale": 3, "window": 8, "compress": 2, "connection": "identity"},
    "scale 4": {"scale": 4, "mlp_ratio": 4.0, "in_channels": 1, "overlap_ratio": 1.0},
}


def randomised(network: HAT) -> HAT:
    """With a convolutional branch that counts more than a hundredth."""
    randomise(network)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4 and "cab.2" in name:
            parameter.data *= 100
    return network


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(24, 16), (19, 27), (5, 40)])
@pytest.mark.slow
def test_the_numbers_are_those_of_the_authors_code(variant: str, size: tuple[int, int]) -> None:
    network = randomised(HAT(**(TINY | VARIANTS[variant]))).eval()
    reference = recognised_by_spandrel(network, "HAT")
    x = torch.rand(2, network.in_channels, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(x)
        torch.testing.assert_close(network(x), expected, atol=5e-5, rtol=5e-5)
    torch.testing.assert_close(network(x).detach(), expected, atol=5e-5, rtol=5e-5)


def test_the_gradients_are_those_of_the_authors_code() -> None:
    network = randomised(HAT(**TINY, **VARIANTS["scale 2"]))
    reference = recognised_by_spandrel(network, "HAT")
    check_gradients(network, reference, torch.rand(2, 3, 8, 12))


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        ({}, 20.77),
        ({"channels": 144, "compress": 24, "squeeze": 24}, 9.62),
        ({"depths": (6,) * 12, "heads": (6,) * 12}, 40.85),
    ],
    ids=["HAT", "HAT-S", "HAT-L"],
)
@pytest.mark.slow
def test_the_size_is_the_papers(arguments: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = HAT(**arguments)
    assert round(count_parameters(network) / 1e6, 2) == millions


def test_the_convolutional_branch_counts_its_scale() -> None:
    network = HAT(**TINY, scale=2, conv_scale=0.0)
    x = torch.rand(1, 3, 8, 8)
    without = network(x)
    randomise(network.layers[0].residual_group.blocks[0].conv_block)
    assert torch.equal(network(x), without)
    network.layers[0].residual_group.blocks[0].conv_scale = 0.5
    assert not torch.allclose(network(x), without, atol=1e-4)


def test_what_published_checkpoints_hold_besides_is_ignored() -> None:
    network = HAT(**TINY)
    published = network.published_state_dict()
    extra = published.keys() - network.state_dict().keys()
    assert extra == {"relative_position_index_SA", "relative_position_index_OCA"}
    network.load_state_dict(published, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2,)}, "network.heads"),
        ({"heads": (2, 5)}, "5, which does not divide"),
        ({"overlap_ratio": 0.25}, "must be even"),
        ({"window": 0}, "network.window must be"),
        ({"overlap_ratio": -0.5}, "network.overlap_ratio 0 or more"),
        ({"squeeze": 13}, "at most"),
        ({"connection": "3conv"}, "network.connection"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HAT(**(TINY | arguments))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_tells_what_it_was_made_with(variant: str) -> None:
    check_inferred(HAT, TINY | VARIANTS[variant])
    assert HAT.infer_arguments({"conv_first.weight": torch.zeros(8, 3, 3, 3)}) is None
