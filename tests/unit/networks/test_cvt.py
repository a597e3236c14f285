"""The CvT restorer: its attention against the definition, and what the design promises."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restora.networks.cost import count_parameters
from restora.networks.cvt import ConvolutionalAttention, CvTRestorer

TINY: dict[str, Any] = {
    "stem_channels": (4, 6),
    "channels": (8, 12, 16),
    "depths": (1, 2, 1),
    "decoder_depths": (1, 1),
    "heads": (1, 2, 4),
    "mlp_ratio": 2.0,
    "drop_path": 0.0,
}


def projected(module: nn.Module, x: Tensor) -> Tensor:
    """(1,H,W,C) -> (N,C): the depthwise convolution and the linear layer, one after the other."""
    depthwise, linear = module.get_submodule("depthwise"), module.get_submodule("linear")
    return linear(depthwise(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2))[0]


def test_attention_is_over_all_positions_with_keys_at_half_the_resolution() -> None:
    torch.manual_seed(0)
    attention = ConvolutionalAttention(channels=8, heads=2)
    x = torch.randn(1, 6, 10, 8)
    q, k, v = (projected(module, x) for module in (attention.to_q, attention.to_k, attention.to_v))
    assert q.shape == (60, 8)
    assert k.shape == v.shape == (15, 8)
    heads = [
        ((q[:, part] @ k[:, part].T / 2).softmax(-1) @ v[:, part]) for part in (slice(0, 4), slice(4, 8))
    ]
    expected = attention.proj(torch.cat(heads, dim=-1)).view(1, 6, 10, 8)
    torch.testing.assert_close(attention(x), expected)


def test_every_pixel_sees_the_whole_photo() -> None:
    torch.manual_seed(0)
    network = CvTRestorer(**TINY).double().eval()
    x = torch.rand(1, 3, 96, 160, dtype=torch.double, requires_grad=True)
    network(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).all()


def test_a_condition_is_stacked_onto_the_photo() -> None:
    torch.manual_seed(0)
    network = CvTRestorer(**TINY, condition_channels=1).eval()
    x, mask = torch.rand(1, 3, 20, 30), torch.ones(1, 1, 20, 30)
    assert not torch.allclose(network(x, mask), network(x, 0 * mask))
    with pytest.raises(ValueError, match="needs a condition"):
        network(x)


def test_the_output_is_added_to_the_input() -> None:
    network = CvTRestorer(**TINY)
    nn.init.zeros_(network.last.weight)
    assert network.last.bias is not None
    nn.init.zeros_(network.last.bias)
    x = torch.rand(1, 3, 17, 33)
    assert torch.equal(network(x), x)


def test_the_encoders_blocks_are_those_of_cvt_13() -> None:
    """The paper's 20 M (table 3) are blocks, embeddings, norms and a classifier of 385,000."""
    with torch.device("meta"):
        network = CvTRestorer()
    blocks = count_parameters(network.stages)
    # ours have the bias of a depthwise convolution where CvT has the two vectors of a batch norm
    norms = sum(3 * depth * width for depth, width in zip((1, 2, 10), (64, 192, 384), strict=True))
    embeddings = 3 * 64 * 49 + 64 * 192 * 9 + 192 * 384 * 9 + (64 + 192 + 384) * 3
    classifier = 385_000 + 384 + 2 * 384  # with the class token and the last norm
    assert round((blocks + norms + embeddings + classifier) / 1e6, 1) == 20.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem_channels": (4,)}, "network.stem_channels needs 2"),
        ({"depths": (1, 1)}, "network.depths needs 3"),
        ({"heads": (1, 5, 1)}, "5, which does not divide 12"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CvTRestorer(**(TINY | arguments))
