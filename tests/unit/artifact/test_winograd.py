"""Convolutions with fewer multiplications give what direct ones give, where they are taken and where not."""

import copy

import pytest
import torch
from torch import nn

from restora.artifact import winograd
from restora.config import build as build_node
from restora.config import parts
from restora.networks.dncnn import DnCNN
from restora.networks.edsr import EDSR


@pytest.fixture
def intel(monkeypatch):
    """As on a CPU that is worth it, which the one of the test need not be."""
    monkeypatch.setattr(winograd, "FAST_PRODUCTS", True)


def seeded(*shape: int) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.contiguous(memory_format=torch.channels_last)


def taken(monkeypatch, network: nn.Module, x: torch.Tensor) -> int:
    """How many of the convolutions of a call were computed by `convolve`."""
    calls = []
    original = winograd.convolve

    def noted(*given, **named):
        calls.append(0)
        return original(*given, **named)

    monkeypatch.setattr(winograd, "convolve", noted)
    with torch.no_grad():
        network(x)
    return len(calls)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((1, 64, 36, 40), 64),
        ((2, 5, 13, 7), 3),
        ((1, 96, 32, 700), 64),
        ((3, 64, 33, 103), 80),  # the last strip of three rows
        ((1, 300, 8, 97), 260),
        ((1, 2, 1, 1), 2),
    ],
)
def test_equals_the_direct_convolution(shape, outputs, bias):
    layer = nn.Conv2d(shape[1], outputs, 3, padding=1, bias=bias).requires_grad_(False)
    x = seeded(*shape)
    exact = nn.functional.conv2d(
        x.double(), layer.weight.double(), layer.bias.double() if bias else None, padding=1
    )
    y = winograd.convolve(x, layer.weight, layer.bias)
    assert y.is_contiguous(memory_format=torch.channels_last)
    rounding = (layer(x) - exact).abs().max().clamp_min(1e-7)
    assert (y - exact).abs().max() < 6 * rounding


def test_the_matrices_multiply_polynomials_exactly():
    """On integers, where float64 has no rounding: row by row of a correlation with three taps."""
    signal, taps = torch.arange(1.0, 9.0) ** 2, torch.tensor([3.0, -5.0, 2.0])
    correlation = signal.unfold(0, 3, 1) @ taps
    product = winograd._OUTPUT @ ((winograd._KERNEL @ taps) * (winograd._INPUT @ signal))
    torch.testing.assert_close(product, correlation, rtol=0, atol=1e-4)


def test_a_network_gives_the_same_and_takes_it_for_its_wide_layers_alone(intel, monkeypatch):
    torch.manual_seed(0)
    network = DnCNN(in_channels=3, depth=5, batch_norm=False).eval().requires_grad_(False)
    fast = copy.deepcopy(network)
    winograd.use_winograd(fast)
    x = seeded(1, 3, 40, 136)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=0, atol=2e-5)
    assert taken(monkeypatch, copy.deepcopy(fast), x) == 3  # of 5: the first and the last are narrow


@pytest.mark.parametrize(
    ("name", "height"),
    [("drunet", 32), ("ffdnet_color", 64), ("imdn", 32), ("mwcnn", 64), ("rednet", 32), ("unet", 32)],
)
@pytest.mark.slow
def test_networks_of_full_size_give_the_same(intel, monkeypatch, name, height):
    """However they use their sequences. Two of them work at half the height."""
    torch.manual_seed(0)
    network = build_node(parts("network")[name], "network").eval()
    network.requires_grad_(False).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(network)
    winograd.use_winograd(fast)
    x = seeded(1, network.in_channels, height, 272)
    condition = torch.full((1, 1, height, 272), 0.1) if network.condition_channels else None
    with torch.no_grad():
        y = network(x, condition)
        assert (fast(x, condition) - y).abs().max() < 1e-4 * y.abs().max()
    assert taken(monkeypatch, lambda x: fast(x, condition), x) > 0


def test_a_relu_behind_a_convolution_is_done_with_it(intel):
    network = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).requires_grad_(False)
    fast = copy.deepcopy(network)
    winograd.use_winograd(fast)
    assert fast[1](torch.tensor(-1.0)) == -1  # it has nothing left to do
    for x in (seeded(2, 64, 40, 136), seeded(1, 64, 20, 20)):  # the second by the direct convolution
        with torch.no_grad():
            torch.testing.assert_close(fast(x), network(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shared", ["relu", "convolution"])
def test_a_module_in_two_places_keeps_to_itself(intel, shared):
    convolution, relu = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()
    more = [relu] if shared == "relu" else [nn.Identity(), convolution]
    network = nn.Sequential(convolution, relu, *more, nn.Conv2d(64, 64, 3, padding=1), nn.Tanh())
    network.requires_grad_(False)
    fast = copy.deepcopy(network)
    winograd.use_winograd(fast)
    x = seeded(1, 64, 40, 136)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=0, atol=2e-5)
    assert fast[1](torch.tensor(-1.0)) == 0


@pytest.mark.parametrize("shape", [(1, 3, 40, 64), (1, 3, 20, 136)], ids=["narrow", "low"])
def test_photos_that_do_not_pay_are_convolved_as_ever(intel, shape):
    network = DnCNN(in_channels=3, depth=4, batch_norm=False).eval().requires_grad_(False)
    fast = copy.deepcopy(network)
    winograd.use_winograd(fast)
    x = seeded(*shape)
    with torch.no_grad():
        assert torch.equal(fast(x), network(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3, padding=1).double(),
        nn.Conv2d(16, 64, 3, padding=1),
    ],
    ids=["strided", "grouped", "reflected", "dilated", "5x5", "unpadded", "same", "float64", "few channels"],
)
def test_other_convolutions_are_left_alone(intel, monkeypatch, layer):
    network = nn.Sequential(layer)
    winograd.use_winograd(network)
    x = seeded(1, layer.in_channels, 40, 136).to(layer.weight.dtype)
    assert taken(monkeypatch, network, x) == 0


def test_a_plain_memory_format_is_convolved_as_ever(intel, monkeypatch):
    network = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    winograd.use_winograd(network)
    assert taken(monkeypatch, network, seeded(1, 64, 40, 136).contiguous()) == 0


def test_other_cpus_keep_their_convolutions(monkeypatch):
    monkeypatch.setattr(winograd, "FAST_PRODUCTS", False)
    network = EDSR(in_channels=3, channels=64, blocks=1, scale=2)
    winograd.use_winograd(network)
    assert taken(monkeypatch, network, seeded(1, 3, 40, 136)) == 0


def test_what_wants_gradients_has_them(intel):
    network = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    winograd.use_winograd(network)
    x = seeded(1, 64, 40, 136).requires_grad_()
    network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
