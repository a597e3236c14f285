"""Uformer against spandrel's with the same random weights, and against the paper's counts."""

from typing import Any

import pytest
import torch
from authors_code import check_gradients, check_inferred, randomise
from torch import nn

from restora.networks.cost import count_parameters
from restora.networks.uformer import Uformer

TINY: dict[str, Any] = {
    "channels": 4,
    "depths": (1, 2, 1, 1, 2, 1, 2, 1, 1),
    "heads": (1, 2, 2, 2, 4, 4, 2, 2, 1),
    "window": 4,
    "drop_path": 0.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "shifted everywhere": {"image_size": 128},
    "bottleneck not shifted": {"image_size": 64, "mlp_ratio": 2.0},
    "bottleneck of smaller windows": {"image_size": 32, "modulator": False},
}


def spandrels(network: Uformer, image_size: int) -> nn.Module:
    """spandrel's network with the published form of the weights."""
    from spandrel.architectures.Uformer import Uformer as Reference

    inferred = Uformer.infer_arguments(network.published_state_dict())
    assert inferred is not None
    reference = Reference(
        img_size=image_size,
        embed_dim=inferred["channels"],
        depths=inferred["depths"],
        num_heads=inferred["heads"],
        win_size=inferred["window"],
        mlp_ratio=inferred["mlp_ratio"],
        modulator=inferred["modulator"],
    )
    reference.load_state_dict(network.published_state_dict())
    return reference.eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [64, 41])
@pytest.mark.slow
def test_the_numbers_are_those_of_the_authors_code(variant: str, size: int) -> None:
    arguments = VARIANTS[variant]
    network = Uformer(**(TINY | arguments)).eval()
    randomise(network)
    reference = spandrels(network, arguments["image_size"])
    assert network.size_multiple == (64 if arguments["image_size"] > 32 else 32)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    fill = -size % network.size_multiple
    with torch.no_grad():
        expected = reference(nn.functional.pad(x, (0, fill, 0, fill), mode="reflect"))[..., :size, :size]
        torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=2e-5)


def test_the_gradients_are_those_of_the_authors_code() -> None:
    network = Uformer(**TINY, image_size=128)
    randomise(network)
    reference = spandrels(network, 128)
    check_gradients(network, reference, torch.rand(1, 3, 64, 64))


def test_a_photo_need_not_be_square() -> None:
    """Turning the photo and every kernel and table of biases turns the result."""
    network = Uformer(**TINY, image_size=128, modulator=False).eval()
    randomise(network)
    turned = Uformer(**TINY, image_size=128, modulator=False).eval()
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("table"):
            grid = value.view(7, 7, -1)
            value = grid.transpose(0, 1).reshape(value.shape)
        state[name] = value.transpose(2, 3) if value.ndim == 4 else value
    turned.load_state_dict(state)
    x = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(turned(x.mT), network(x).mT, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        ({}, 50.88),
        ({"depths": (2,) * 9, "modulator": False}, 20.63),
        ({"channels": 16, "depths": (2,) * 9, "modulator": False}, 5.23),
    ],
    ids=["B", "S", "T"],
)
@pytest.mark.slow
def test_the_size_is_the_papers(arguments: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = Uformer(**arguments)
    assert round(count_parameters(network) / 1e6, 2) == millions


def test_stochastic_depth_mirrors_in_the_decoder() -> None:
    network = Uformer(**{**TINY, "depths": (1, 2, 1, 1, 2, 1, 1, 2, 1), "drop_path": 0.4})
    drops = [module.drop for module in network.modules() if hasattr(module, "drop")]
    assert drops == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0])


def test_a_decoder_may_be_deeper_than_the_encoder() -> None:
    depths = [1, 1, 1, 1, 1, 2, 3, 2, 2]
    state = Uformer(**{**TINY, "depths": depths}).published_state_dict()
    inferred = Uformer.infer_arguments(state)
    assert inferred is not None
    assert inferred["depths"] == depths


def test_what_published_checkpoints_hold_besides_is_ignored() -> None:
    network = Uformer(**TINY)
    published = network.published_state_dict()
    extra = {name.rpartition(".")[2] for name in published.keys() - network.state_dict().keys()}
    assert extra == {"relative_position_index"}
    network.load_state_dict(published, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1,) * 8}, "nine stages"),
        ({"heads": (1, 2, 2, 2, 4, 4, 2, 3, 1)}, "3 heads do not divide"),
        ({"window": 0}, "network.window"),
        ({"image_size": 40}, "network.image_size"),
        ({"image_size": 16}, "network.image_size"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Uformer(**(TINY | arguments))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_tells_what_it_was_made_with(variant: str) -> None:
    check_inferred(Uformer, TINY | VARIANTS[variant])
    assert Uformer.infer_arguments({"input_proj.proj.0.weight": torch.zeros(8, 3, 3, 3)}) is None
