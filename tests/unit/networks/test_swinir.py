"""SwinIR against spandrel's with the same random weights, and against the paper's counts."""

from typing import Any

import pytest
import torch
from authors_code import check_gradients, randomise, recognised_by_spandrel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restora.networks.cost import count_macs, count_parameters
from restora.networks.swinir import SwinIR

HEADS: dict[str, dict[str, Any]] = {
    "denoise": {"image_size": 16},
    "jpeg": {"in_channels": 1, "window": 7, "value_range": 255.0, "image_size": 21},
    "classical x4": {"scale": 4, "upsampler": "pixelshuffle"},
    "classical x3": {"scale": 3, "upsampler": "pixelshuffle", "connection": "3conv"},
    "lightweight": {"scale": 2, "upsampler": "pixelshuffledirect", "in_channels": 1},
    "real x2": {"scale": 2, "upsampler": "nearest+conv"},
    "real x8": {"scale": 8, "upsampler": "nearest+conv", "connection": "3conv"},
}
PAPER: dict[str, dict[str, Any]] = {
    "classical x4": {"scale": 4, "upsampler": "pixelshuffle"},
    "lightweight x2": {
        "channels": 60,
        "depths": (6,) * 4,
        "heads": (6,) * 4,
        "scale": 2,
        "upsampler": "pixelshuffledirect",
    },
}
PAPER["lightweight x4"] = PAPER["lightweight x2"] | {"scale": 4}


def tiny(**arguments: Any) -> SwinIR:
    return SwinIR(**{"channels": 12, "depths": (2, 1), "heads": (2, 3), "drop_path": 0.0, **arguments})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(24, 16), (19, 27), (5, 40)])
@pytest.mark.slow
def test_the_numbers_are_those_of_the_authors_code(head: str, size: tuple[int, int]) -> None:
    network = tiny(**HEADS[head]).eval()
    randomise(network)
    reference = recognised_by_spandrel(network, "SwinIR")
    x = torch.rand(2, network.in_channels, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(x)
        torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(network(x).detach(), expected, atol=2e-5, rtol=2e-5)


def test_the_gradients_are_those_of_the_authors_code() -> None:
    network = tiny(**HEADS["lightweight"])
    randomise(network)
    reference = recognised_by_spandrel(network, "SwinIR")
    check_gradients(network, reference, torch.rand(2, 1, 16, 24))


@pytest.mark.parametrize("head", HEADS)
def test_what_published_checkpoints_hold_besides_is_ignored(head: str) -> None:
    network = tiny(**HEADS[head])
    published = network.published_state_dict()
    extra = {name.rpartition(".")[2] for name in published.keys() - network.state_dict().keys()}
    assert extra == {"relative_position_index", "attn_mask"}
    masks = [value for name, value in published.items() if name.endswith("attn_mask")]
    assert all(set(mask.unique().tolist()) == {0.0, -100.0} for mask in masks)
    other = tiny(**HEADS[head])
    other.load_state_dict(published, strict=True)
    for name, value in other.state_dict().items():
        assert torch.equal(value, published[name])
    family = nn.ModuleDict({"network": other})
    family.load_state_dict({f"network.{name}": value for name, value in published.items()}, strict=True)


@pytest.mark.parametrize(
    ("size", "thousands"), [("classical x4", 11900), ("lightweight x2", 878), ("lightweight x4", 897)]
)
@pytest.mark.slow
def test_the_size_is_the_papers(size: str, thousands: int) -> None:
    with torch.device("meta"):
        network = SwinIR(**PAPER[size])
    tables = sum(p.numel() for name, p in network.named_parameters() if name.endswith("bias_table"))
    # the paper counts the lightweight networks without their tables of position biases
    counted = count_parameters(network) - (tables if size.startswith("lightweight") else 0)
    assert round(counted / 1e3) == thousands


@pytest.mark.slow
def test_the_lightweight_networks_arithmetic_is_the_papers() -> None:
    with torch.device("meta"):
        network = SwinIR(**PAPER["lightweight x4"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 720 // 4, 1280 // 4, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    layers = (counts[torch.ops.aten.convolution] + counts[torch.ops.aten.addmm]) / 2
    # table 4: 49.6 G for an output of 1280 x 720, attention left out; 180 rows are padded to 184
    assert layers * 180 / 184 == pytest.approx(49.6e9, rel=0.03)
    attention = 24 * 2 * 184 * 320 * 64 * 60  # 24 blocks, two products with 64 positions at every pixel
    assert count_macs(network, height=184, width=320) == layers + attention


def test_stochastic_depth_grows_with_depth_and_is_for_training() -> None:
    network = SwinIR(channels=8, depths=(2, 3), heads=(2, 2), drop_path=0.4)
    drops = [block.drop for layer in network.layers for block in layer.residual_group.blocks]
    assert drops == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x = torch.rand(4, 3, 16, 16)
    torch.manual_seed(0)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_half_precision_stays_half_precision_inside() -> None:
    network = tiny()
    features = torch.rand(1, 16, 16, 12, dtype=torch.bfloat16)
    mask = torch.zeros(4, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.layers[0](features, network.relative_positions, mask).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2,)}, "network.heads"),
        ({"heads": (2, 5)}, "5, which does not divide"),
        ({"upsampler": "bicubic"}, "network.upsampler"),
        ({"connection": "2conv"}, "network.connection"),
        ({"scale": 2}, "network.scale=1"),
        ({"scale": 3, "upsampler": "nearest+conv"}, "doubles"),
        ({"image_size": 8}, "network.image_size"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_tells_what_it_was_made_with(head: str) -> None:
    network = tiny(**HEADS[head])
    state = network.published_state_dict()
    inferred = SwinIR.infer_arguments(state)
    assert inferred is not None
    assert {name: inferred[name] for name in HEADS[head]} == HEADS[head]
    again = SwinIR(**inferred).published_state_dict()
    assert {name: value.shape for name, value in again.items()} == {n: v.shape for n, v in state.items()}
    assert SwinIR.infer_arguments({"conv_first.weight": torch.zeros(8, 3, 3, 3)}) is None
