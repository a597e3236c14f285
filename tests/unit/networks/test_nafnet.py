"""NAFNet against spandrel's with the same random weights, and against the paper's counts."""

from typing import Any

import pytest
import torch
from torch import nn

from restora.networks.cost import count_macs, count_parameters
from restora.networks.nafnet import NAFNet

DEBLUR = {"encoder_blocks": (1, 1, 1, 28), "middle_blocks": 1, "decoder_blocks": (1, 1, 1, 1)}


def randomise(network: nn.Module) -> None:
    """Make every parameter matter: residual scales start at zero, norms at one and zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.5, generator=generator)
        elif "norm" in name:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (37, 51), (1, 90), (64, 18)])
def test_the_numbers_are_those_of_the_authors_code(channels: int, size: tuple[int, int]) -> None:
    from spandrel.architectures.NAFNet import NAFNet as Reference

    reference = Reference(
        img_channel=channels, width=16, enc_blk_nums=[1, 2, 1], middle_blk_num=2, dec_blk_nums=[1, 1, 2]
    ).eval()
    randomise(reference)
    network = NAFNet(
        in_channels=channels, width=16, encoder_blocks=(1, 2, 1), middle_blocks=2, decoder_blocks=(1, 1, 2)
    )
    network.load_state_dict(reference.state_dict(), strict=True)
    x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "blocks",
    [
        {"encoder_blocks": [1, 2], "middle_blocks": 0, "decoder_blocks": [1, 1]},
        {"encoder_blocks": [0, 0], "middle_blocks": 2, "decoder_blocks": [0, 3]},
        {"encoder_blocks": [], "middle_blocks": 1, "decoder_blocks": []},
    ],
)
def test_levels_without_blocks_are_inferred_from_weights(blocks: dict[str, Any]) -> None:
    found = NAFNet.infer_arguments(NAFNet(width=8, **blocks).state_dict())
    assert found is not None
    assert {key: found[key] for key in blocks} == blocks


def test_the_gradients_are_those_of_the_authors_code() -> None:
    from spandrel.architectures.NAFNet import NAFNet as Reference

    reference = Reference(img_channel=3, width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    randomise(reference)
    network = NAFNet(width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1))
    network.load_state_dict(reference.state_dict())
    x = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    reference(x).square().mean().backward()
    network(x).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize(
    ("width", "blocks", "millions", "gmacs"),
    [(32, {}, 29.16, 16.2), (64, {}, 115.98, 63.6), (32, DEBLUR, 17.11, 16.1), (64, DEBLUR, 67.89, 63.5)],
)
@pytest.mark.slow
def test_the_size_is_the_papers(width: int, blocks: dict[str, object], millions: float, gmacs: float) -> None:
    with torch.device("meta"):
        network = NAFNet(width=width, **blocks)  # type: ignore[arg-type]
    assert round(count_parameters(network) / 1e6, 2) == millions
    # the paper counts 16, 65, 16 and 65 with a counter that takes the norms along
    assert count_macs(network) == pytest.approx(gmacs * 1e9, rel=0.03)


def test_a_new_network_only_adds_what_its_two_outer_convolutions_make() -> None:
    network = NAFNet(width=8, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    x = torch.rand(1, 3, 16, 16)
    for stage in (network.encoders[0], network.middle_blks):
        features = torch.rand(1, 4, 4, stage[0].beta.shape[1])
        assert torch.equal(stage(features), features)
    nn.init.zeros_(network.ending.weight)
    nn.init.zeros_(network.ending.bias)
    assert torch.equal(network(x), x)


def test_half_precision_stays_half_precision_inside() -> None:
    network = NAFNet(width=8, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    randomise(network)
    seen = []
    for block in (network.encoders[0][0], network.middle_blks[0], network.decoders[0][0]):
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, 16, 16))
    assert seen == [torch.bfloat16] * 3


@pytest.mark.parametrize(
    "arguments",
    [{"encoder_blocks": (1, 1), "decoder_blocks": (1,)}, {"width": 5, "depthwise_expansion": 1}],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="NAFNet's"):
        NAFNet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{}, DEBLUR, {"in_channels": 1, "width": 16, "ffn_expansion": 4}])
def test_a_checkpoint_tells_what_it_was_made_with(arguments: dict[str, object]) -> None:
    with torch.device("meta"):
        network = NAFNet(**arguments)  # type: ignore[arg-type]
        inferred = NAFNet.infer_arguments(network.state_dict())
        assert inferred is not None
        again = NAFNet(**inferred)  # type: ignore[arg-type]
    shapes = [{name: tuple(value.shape) for name, value in n.state_dict().items()} for n in (network, again)]
    assert shapes[0] == shapes[1]
    assert {name: inferred[name] for name in arguments} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()
    }
    assert NAFNet.infer_arguments({"conv_first.weight": torch.zeros(1)}) is None
