"""NAFNet with transposed attention against a plain transcription, and its test-time local converter."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.cost import count_parameters
from restora.networks.layers.local_converter import convert
from restora.networks.nafnet import NAFNet
from restora.networks.nafnet_mdta import GatedTransposedAttention, NAFNetMDTA

SMALL = {"width": 8, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1), "heads": 2}


@pytest.fixture
def network() -> NAFNetMDTA:
    torch.manual_seed(1)
    network = NAFNetMDTA(**SMALL).eval()  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma", "temperature")):
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return network


def queries_keys_values(block: GatedTransposedAttention, x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,3C,H,W)."""
    y = F.conv2d(x, block.qkv.weight, block.qkv.bias)
    return F.conv2d(y, block.qkv_dwconv.weight, block.qkv_dwconv.bias, padding=1, groups=y.shape[1])


def attention_by_hand(block: GatedTransposedAttention, qkv: Tensor) -> Tensor:
    """Equation 1 of Restormer: (B,3C,H,W) -> (B,C,H,W)."""
    b, _, h, w = qkv.shape
    q, k, v = (t.reshape(b, block.heads, -1, h * w) for t in qkv.chunk(3, 1))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * block.temperature
    y = (scores.softmax(-1) @ v).reshape(b, -1, h, w)
    return F.conv2d(y, block.project_out.weight, block.project_out.bias)


def test_the_gate_multiplies_the_features_by_their_attention(network: NAFNetMDTA) -> None:
    block = network.middle_blks[0].sca
    x = torch.randn(2, 5, 7, 32)
    first = x.permute(0, 3, 1, 2)
    expected = first * attention_by_hand(block, queries_keys_values(block, first))
    torch.testing.assert_close(block(x).permute(0, 3, 1, 2), expected, atol=1e-5, rtol=1e-4)


def test_it_is_nafnet_in_all_else() -> None:
    with torch.device("meta"):
        ours, plain = NAFNetMDTA().state_dict(), NAFNet(
            encoder_blocks=(1, 1, 1, 28), middle_blocks=1, decoder_blocks=(1, 1, 1, 1)
        ).state_dict()  # fmt: skip
    assert {k: v.shape for k, v in ours.items() if ".sca." not in k} == {
        k: v.shape for k, v in plain.items() if ".sca." not in k
    }
    with torch.device("meta"):
        network = NAFNetMDTA()
    assert network.middle_blks[0].sca.heads == 8
    sca = sum(v.numel() for k, v in ours.items() if ".sca." in k)
    by_level = [(32, 1 + 1), (64, 1 + 1), (128, 1 + 1), (256, 28 + 1), (512, 1)]
    assert sca == sum(n * (8 + 3 * c * c + 3 * c + 27 * c + 3 * c + c * c + c) for c, n in by_level)
    assert count_parameters(network) == 24_005_955


def test_converted_it_is_itself_on_what_the_window_covers(network: NAFNetMDTA) -> None:
    local = convert(network, train_size=(32, 32))
    with torch.no_grad():
        for size in ((32, 32), (48, 40), (17, 48)):
            x = torch.rand(1, 3, *size)
            assert torch.equal(local(x), network(x))
        x = torch.rand(1, 3, 90, 57)
        y = local(x)
        assert y.isfinite().all()
        assert not torch.equal(y, network(x))


@pytest.mark.parametrize(("size", "window"), [((10, 6), (5, 6)), ((11, 7), (4, 5)), ((9, 20), (12, 8))])
def test_local_attention_is_averaged_over_windows(size: tuple[int, int], window: tuple[int, int]) -> None:
    torch.manual_seed(2)
    block = GatedTransposedAttention(channels=8, heads=2, bias=True)
    block.window = window
    x = torch.randn(1, 8, *size)
    qkv = queries_keys_values(block, x)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    height, width = (min(a, b) for a, b in zip(size, window, strict=True))
    starts = {
        (10, 5): [0, 5],
        (6, 6): [0],
        (11, 4): [0, 4, 7],
        (7, 5): [0, 2],
        (9, 9): [0],
        (20, 8): [0, 6, 12],
    }
    for top in starts[size[0], height]:
        for left in starts[size[1], width]:
            part = (..., slice(top, top + height), slice(left, left + width))
            total[part] += attention_by_hand(block, qkv[part])
            count[part] += 1
    assert count.min() == 1
    expected = x * total / count
    got = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_tells_what_it_was_made_with(network: NAFNetMDTA) -> None:
    inferred = NAFNetMDTA.infer_arguments(network.state_dict())
    assert inferred is not None
    assert {name: inferred[name] for name in SMALL} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()
    }
    assert NAFNet.infer_arguments(network.state_dict()) is None
    assert (
        NAFNetMDTA.infer_arguments(NAFNet(width=8, encoder_blocks=(1,), decoder_blocks=(1,)).state_dict())
        is None
    )


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="network.heads=8 does not divide"):
        NAFNetMDTA(width=12)
