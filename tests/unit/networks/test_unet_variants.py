"""Attention U-Net, U-Net with CBAM, the 256 x 256 U-Net and EDCNN: what distinguishes each."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from restora.networks.attention_unet import AttentionGate, AttentionUNet
from restora.networks.cbam_unet import CBAM, CBAMUNet
from restora.networks.cost import count_parameters
from restora.networks.edcnn import EDCNN, pool, unpool
from restora.networks.unet256 import Down, UNet256, Up

WAYS = ["bilinear", "transposed", "pixel_shuffle", "unpooling", "reshape"]
SMALL = (4, 8, 12)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def test_the_attention_gate_by_hand() -> None:
    gate = AttentionGate(4)
    skip, gating = torch.randn(2, 1, 4, 3, 5).unbind()
    w_x, w_g, psi = gate.W_x.weight[..., 0, 0], gate.W_g.weight[..., 0, 0], gate.psi.weight[0, :, 0, 0]
    for y, x in ((0, 0), (2, 3)):
        hidden = (w_x @ skip[0, :, y, x] + w_g @ gating[0, :, y, x] + gate.W_g.bias).relu()
        expected = skip[0, :, y, x] * torch.sigmoid(psi @ hidden + gate.psi.bias)
        torch.testing.assert_close(gate(skip, gating)[0, :, y, x], expected)


def test_a_closed_gate_cuts_the_skip() -> None:
    network = AttentionUNet(channels=SMALL, residual=False).eval()
    x = torch.rand(1, 3, 16, 16)
    for gate in network.skips:
        nn.init.constant_(gate.psi.bias, -100.0)
    closed = network(x)
    for gate in network.skips:
        gate.forward = lambda skip, _gating: torch.zeros_like(skip)  # type: ignore[method-assign]
    torch.testing.assert_close(closed, network(x))


def test_cbam_by_hand() -> None:
    block = CBAM(4, reduction=2, window=3)
    x = torch.randn(2, 4, 5, 6)

    def mlp(v: torch.Tensor) -> torch.Tensor:
        first, _, second = block.mlp
        hidden = (v @ first.weight[..., 0, 0].T + first.bias).relu()
        return hidden @ second.weight[..., 0, 0].T + second.bias

    channel = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.flatten(2).max(-1).values))
    y = x * channel[:, :, None, None]
    pair = torch.stack((y.mean(1), y.max(1).values), 1)
    expected = y * torch.sigmoid(F.conv2d(pair, block.spatial.weight, block.spatial.bias, padding=1))
    torch.testing.assert_close(block(x), expected)


def test_cbam_refuses_a_reduction_of_nothing() -> None:
    with pytest.raises(ValueError, match="network.reduction"):
        CBAMUNet(reduction=0)


def test_the_size_of_the_256_unet_is_what_keras_counts() -> None:
    with torch.device("meta"):
        network = UNet256()
    assert count_parameters(network) == 9_600_206
    statistics = sum(b.numel() for name, b in network.named_buffers() if "num_batches" not in name)
    assert count_parameters(network) + statistics == 9_602_766


def test_its_strided_convolutions_are_padded_as_keras_pads_them() -> None:
    """Keras' "same": of the one row and column that are missing, none goes before the photo."""
    down = Down(1, 1, batch_norm=False)
    nn.init.zeros_(down.conv.bias)
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 0, 0] = 1  # the corner meets the kernel's first weight only
    nn.init.constant_(down.conv.weight, 1.0)
    down.conv.weight.data[0, 0, 0, 0] = 5.0
    assert down(x).flatten().tolist() == [5, *[0] * 8]


def test_its_transposed_convolutions_are_the_adjoint_of_the_strided_ones() -> None:
    up, down = Up(2, 3), nn.Conv2d(3, 2, 3, stride=2, bias=False)
    down.weight.data = up.conv.weight.data
    nn.init.zeros_(up.conv.bias)
    fine, coarse = torch.randn(1, 3, 8, 10), torch.randn(1, 2, 4, 5)
    there = (down(F.pad(fine, (0, 1, 0, 1))) * coarse).sum()
    enlarged = up.conv(coarse)[..., :-1, :-1]
    torch.testing.assert_close(there, (fine * enlarged).sum(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(up(coarse), F.leaky_relu(enlarged, 0.3))


def test_the_photo_reaches_the_output_of_the_256_unet_directly() -> None:
    network = UNet256(channels=SMALL).eval()
    nn.init.zeros_(network.output.weight)
    nn.init.zeros_(network.output.bias)
    for channel in range(3):
        network.output.weight.data[channel, 3 + channel, 0, 0] = 1
    x = torch.rand(1, 3, 13, 20)
    assert torch.equal(network(x), x)


def test_edcnn_has_23_layers() -> None:
    with torch.device("meta"):
        networks = [EDCNN(upsampling=way, skips=skips) for way in WAYS for skips in (True, False)]  # type: ignore[arg-type]
    for network in networks:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(layers) == 2 + 4 * 2 + 4 * 3 + 1
    assert count_parameters(networks[2]) > count_parameters(networks[3])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("skips", [True, False])
def test_every_way_up_teaches_every_layer_and_stays_in_range(way: str, skips: bool) -> None:
    network = EDCNN(channels=SMALL, upsampling=way, skips=skips)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 18, 25)
    y = network(x)
    assert y.shape == x.shape
    assert y.min() > 0
    assert y.max() < 1
    (y - x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    again = network(x)
    assert torch.equal(again, y)


def test_pooling_remembers_places_as_torch_does() -> None:
    x = torch.randn(2, 3, 6, 8)
    values, places = pool(x)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(values, expected)
    y = torch.randn_like(values)
    assert torch.equal(unpool(y, places), F.max_unpool2d(y, indices, 2))


def test_only_one_place_is_kept_where_values_are_equal() -> None:
    _, places = pool(torch.zeros(1, 1, 4, 4))
    assert (places.sum(-1) == 1).all()


def test_edcnn_names_what_it_has() -> None:
    with pytest.raises(
        ValueError, match="bilinear, transposed, pixel_shuffle, unpooling, reshape; got 'nearest'"
    ):
        EDCNN(upsampling="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiples of 4"):
        EDCNN(upsampling="reshape", channels=(4, 6))
