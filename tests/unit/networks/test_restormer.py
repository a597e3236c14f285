"""Restormer against spandrel's with the same random weights, and against the paper's counts."""

import pytest
import torch
from authors_code import check_gradients
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restora.networks.cost import count_macs, count_parameters
from restora.networks.layers.restormer_blocks import TransposedAttention
from restora.networks.restormer import Restormer

TINY = {"channels": 8, "blocks": (1, 2, 1, 1), "refinement_blocks": 1, "heads": (1, 2, 2, 4)}


def randomise(network: nn.Module) -> None:
    """Make every parameter matter: norms start at one and zero, temperatures at one."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 or name.endswith("temperature"):
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)


def reference_of(network: Restormer, arguments: dict[str, object]) -> nn.Module:
    """spandrel's network with the same weights."""
    from spandrel_extra_arches.architectures.Restormer import Restormer as Reference

    names = {
        "channels": "dim",
        "blocks": "num_blocks",
        "refinement_blocks": "num_refinement_blocks",
        "expansion": "ffn_expansion_factor",
        "norm": "LayerNorm_type",
        "dual_pixel": "dual_pixel_task",
        "in_channels": "inp_channels",
    }
    defaults = {"norm": "BiasFree"}
    reference = Reference(**{names.get(name, name): value for name, value in (defaults | arguments).items()})
    reference.load_state_dict(network.state_dict(), assign=True)
    return reference


VARIANTS = [
    {"norm": "BiasFree"},
    {"norm": "WithBias", "bias": True, "in_channels": 1, "out_channels": 1},
    {"norm": "WithBias", "dual_pixel": True, "in_channels": 6, "expansion": 2.0},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(32, 32), (37, 51), (8, 90), (65, 18)])
@pytest.mark.slow
def test_the_numbers_are_those_of_the_authors_code(variant: dict[str, object], size: tuple[int, int]) -> None:
    network = Restormer(**TINY, **variant)  # type: ignore[arg-type]
    randomise(network)
    reference = reference_of(network, TINY | variant)
    x = torch.rand(2, network.in_channels, *size, generator=torch.Generator().manual_seed(2))
    padded = nn.functional.pad(x, (0, -size[1] % 8, 0, -size[0] % 8), mode="reflect")
    with torch.no_grad():
        expected = reference(padded)[..., : size[0], : size[1]]
        torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.slow
def test_the_gradients_are_those_of_the_authors_code(variant: dict[str, object]) -> None:
    network = Restormer(**TINY, **variant)  # type: ignore[arg-type]
    randomise(network)
    reference = reference_of(network, TINY | variant)
    check_gradients(network, reference, torch.rand(2, network.in_channels, 16, 24))


@pytest.mark.parametrize(("norm", "millions"), [("WithBias", 26.13), ("BiasFree", 26.11)])
@pytest.mark.slow
def test_the_size_is_the_papers(norm: str, millions: float) -> None:
    with torch.device("meta"):
        network = Restormer(norm=norm)  # type: ignore[arg-type]
    assert round(count_parameters(network) / 1e6, 2) == millions


@pytest.mark.slow
def test_folding_the_projection_saves_arithmetic() -> None:
    with torch.device("meta"):
        network = Restormer()
    reference = reference_of(network, {}).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        reference(torch.empty(1, 3, 256, 256, device="meta"))
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert round(convolutions / 2e9, 2) == 140.99  # the paper's count, which leaves attention out
    macs = count_macs(network)
    assert macs is not None
    assert macs < 0.96 * counter.get_total_flops() / 2


def test_a_channel_that_is_zero_everywhere_is_no_obstacle() -> None:
    network = Restormer(**TINY)  # type: ignore[arg-type]
    attention = network.encoder_level2[0].attn
    nn.init.zeros_(attention.qkv.weight[:5])
    y = network(torch.rand(1, 3, 16, 16))
    y.mean().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_float16_holds_the_sums_over_many_positions() -> None:
    attention = TransposedAttention(channels=8, heads=2, bias=False)
    q = 3 + torch.rand(1, 64 * 256, 8, generator=torch.Generator().manual_seed(0))  # sums of 150,000
    found = attention.half().statistic(q.half(), q.half())
    torch.testing.assert_close(found.float(), attention.float().statistic(q, q), atol=2e-3, rtol=0)


def test_half_precision_stays_half_precision_inside() -> None:
    for norm in ("BiasFree", "WithBias"):
        network = Restormer(**TINY, norm=norm)  # type: ignore[arg-type]
        with torch.autocast("cpu", torch.bfloat16):
            features = network.encoder_level1(torch.rand(1, 16, 16, 8, dtype=torch.bfloat16))
        assert features.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": (1, 1, 1)}, "four levels"),
        ({"heads": (1, 2, 4, 7)}, "7 heads do not"),
        ({"heads": (1, 2, 4, -1)}, "-1 heads do not"),
        ({"channels": 7, "heads": (1, 1, 1, 1)}, "must be even"),
        ({"norm": "LayerNorm"}, "network.norm"),
        ({"in_channels": 6}, "network.dual_pixel"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Restormer(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 48, "expansion": 2.66, "norm": "WithBias"},
        {
            "channels": 24,
            "blocks": [1, 2, 3, 4],
            "refinement_blocks": 2,
            "heads": [1, 1, 2, 4],
            "expansion": 2.0,
        },
        {"channels": 32, "bias": True, "in_channels": 6, "dual_pixel": True, "expansion": 1.5},
    ],
)
def test_a_checkpoint_tells_what_it_was_made_with(arguments: dict[str, object]) -> None:
    with torch.device("meta"):
        state = Restormer(**arguments).state_dict()  # type: ignore[arg-type]
    inferred = Restormer.infer_arguments(state)
    assert inferred is not None
    assert {name: inferred[name] for name in arguments} == arguments
    with torch.device("meta"):
        again = Restormer(**inferred).state_dict()
    assert {name: value.shape for name, value in again.items()} == {n: v.shape for n, v in state.items()}
    assert Restormer.infer_arguments({"patch_embed.proj.weight": torch.zeros(8, 3, 3, 3)}) is None
