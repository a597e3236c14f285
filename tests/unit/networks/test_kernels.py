"""The fused kernels give what the plain formulation gives, forward and backward, at odd sizes: on a GPU, or
where there is none by Triton's interpreter, on a CPU."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.image import full_precision
from restora.networks.layers.channels_last import bias_free_layer_norm
from restora.networks.layers.restormer_blocks import TransformerBlock, TransposedAttention
from restora.networks.nafnet import NAFNet, simple_gate

os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"
pytest.importorskip(
    "triton", reason="Triton is not installed (it comes with torch for CUDA): pip install triton"
)

from restora import kernels
from restora.kernels import functions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: {"atol": 1e-4, "rtol": 1e-4}, torch.bfloat16: {"atol": 0.06, "rtol": 0.06}}
SIZES = [(2, 3, 5, 12), (1, 1, 33, 20), (3, 1, 1, 8)]
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "bfloat16"])
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """The plain formulation without TF32, which a GPU takes for convolutions."""
    with full_precision(torch.device(DEVICE)):
        yield


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE)


def compare(
    fused: Callable[..., Any], plain: Callable[..., Any], inputs: list[Tensor], dtype: torch.dtype
) -> None:
    """The plain formulation in float32, of inputs that are rounded alike."""
    given = [value.to(dtype) for value in inputs]
    ours = [value.clone().requires_grad_() for value in given]
    theirs = [value.float().requires_grad_() for value in given]
    answers = [made if isinstance(made, tuple) else (made,) for made in (fused(*ours), plain(*theirs))]
    slopes = [torch.randn_like(wanted) for wanted in answers[1]]
    for answer in answers:
        sum((a.float() * s).sum() for a, s in zip(answer, slopes, strict=True)).backward()
    for got, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(got.float(), wanted, **TOLERANCES[dtype])
    for got, wanted in zip(ours, theirs, strict=True):
        scale = wanted.grad.abs().max().clamp_min(1.0)
        torch.testing.assert_close(got.grad.float() / scale, wanted.grad / scale, **TOLERANCES[dtype])


@dtypes
@sizes
@pytest.mark.parametrize("centred", [True, False], ids=["layer norm", "mean kept"])
def test_norm_and_linear(dtype: torch.dtype, size: tuple[int, ...], centred: bool) -> None:
    channels, outs = size[-1], 2 * size[-1] + 3

    def plain(x: Tensor, gain: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        if not centred:
            return F.linear(bias_free_layer_norm(x, gain, 1e-6), weight)
        return F.linear(F.layer_norm(x, (channels,), gain, rest[0], 1e-6), weight, rest[1])

    def fused(x: Tensor, gain: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        shift, bias = rest or (None, None)
        return functions.norm_linear(x, gain, shift, weight, bias, 1e-6, centred=centred)

    inputs = [numbers(*size) + 0.5, 1 + 0.2 * numbers(channels), numbers(outs, channels) / channels**0.5]
    compare(fused, plain, [*inputs, *([numbers(channels), numbers(outs)] if centred else [])], dtype)


@dtypes
@sizes
def test_depthwise_convolution_gate_and_sums(dtype: torch.dtype, size: tuple[int, ...]) -> None:
    batch, height, width, channels = size

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=2 * channels).permute(0, 2, 3, 1)
        return simple_gate(y), simple_gate(y).sum((1, 2))

    inputs = [
        numbers(batch, height, width, 2 * channels),
        numbers(2 * channels, 1, 3, 3) / 3,
        numbers(2 * channels),
    ]
    if dtype == torch.bfloat16:  # the sums of many rounded numbers are compared by the gate they sum
        compare(lambda *given: functions.depthwise_gate(*given)[0], lambda *g: plain(*g)[0], inputs, dtype)
    else:
        compare(functions.depthwise_gate, plain, inputs, dtype)


@dtypes
@sizes
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
def test_depthwise_convolution_and_gelu_gate(dtype: torch.dtype, size: tuple[int, ...], biased: bool) -> None:
    batch, height, width, channels = size

    def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=2 * channels).permute(0, 2, 3, 1)
        first, second = y.chunk(2, dim=-1)
        return F.gelu(first) * second

    def fused(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functions.depthwise_gelu_gate(x, weight, bias)

    inputs = [numbers(batch, height, width, 2 * channels), numbers(2 * channels, 1, 3, 3) / 3]
    compare(fused, plain, [*inputs, *([numbers(2 * channels)] if biased else [])], dtype)


def test_many_rows_are_walked_in_bands() -> None:
    """More rows than one program walks down, and more channels than it holds."""
    test_depthwise_convolution_gate_and_sums(torch.float32, (1, 18, 2, 36))


@dtypes
@sizes
@pytest.mark.parametrize("halves", [False, True], ids=["attention", "gate"])
def test_scaled_linear_and_residual(dtype: torch.dtype, size: tuple[int, ...], halves: bool) -> None:
    batch, height, width, channels = size
    outs = channels + 5

    def plain(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *factor: Tensor) -> Tensor:
        y = simple_gate(y) if halves else y * factor[0][:, None, None]
        return x + F.linear(y, weight, bias)

    def fused(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *factor: Tensor) -> Tensor:
        if halves:
            return functions.gated_linear(x, y, weight, bias)
        return functions.scaled_linear(x, y, factor[0], weight, bias)

    inputs = [
        numbers(batch, height, width, outs),
        numbers(batch, height, width, channels * (1 + halves)),
        numbers(outs, channels) / channels**0.5,
        numbers(outs),
    ]
    compare(fused, plain, [*inputs, *([] if halves else [numbers(batch, channels)])], dtype)


def test_a_block_has_no_more_outputs_than_there_are() -> None:
    assert functions._tile(32, 32) == {"BC": 32, "BM": 64, "BN": 32}
    assert functions._tile(32, 200)["BN"] == 64
    assert functions._tile(512, 1024)["BN"] == 32  # nor more than registers hold


@pytest.fixture
def turned_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if the CPU were a GPU with kernels turned on; the channels of those that were used."""
    used: list[int] = []

    def usable(x: Tensor, channels: int) -> bool:
        used.append(channels)
        return not x.is_meta

    monkeypatch.setattr(kernels, "usable", usable)
    return used


@pytest.mark.parametrize(
    "make",
    [
        lambda: NAFNet(width=8, encoder_blocks=[1, 1], middle_blocks=1, decoder_blocks=[1, 1]),
        lambda: TransformerBlock(channels=12, heads=2, expansion=2.66, bias=False, norm="BiasFree"),
        lambda: TransformerBlock(channels=12, heads=2, expansion=2.66, bias=True, norm="WithBias"),
    ],
    ids=["NAFNet", "Restormer's block", "Restormer's block with bias"],
)
def test_networks_with_and_without_them_are_the_same(
    make: Callable[[], nn.Module], turned_on: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make().to(DEVICE)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    size = (1, 3, 8, 8) if isinstance(network, NAFNet) else (2, 5, 7, 12)
    x = torch.rand(size, device=DEVICE)
    slope = torch.randn_like(x)
    made = []
    for _ in range(2):
        network.zero_grad()
        y = network(x)
        (y * slope).sum().backward()
        made.append((y.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}))
        monkeypatch.undo()
        monkeypatch.setattr(kernels, "usable", lambda *_: False)
    assert turned_on
    torch.testing.assert_close(made[0][0], made[1][0], atol=1e-4, rtol=1e-4)
    for name, wanted in made[1][1].items():
        scale = wanted.abs().max().clamp_min(1.0)
        torch.testing.assert_close(made[0][1][name] / scale, wanted / scale, atol=1e-4, rtol=1e-4)


def test_a_local_mean_is_left_to_the_plain_formulation(turned_on: list[int]) -> None:
    from restora.networks.layers.local_converter import convert

    network = NAFNet(width=8, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    local = convert(network, train_size=(8, 8)).to(DEVICE)
    x = torch.rand(1, 3, 16, 16, device=DEVICE)
    fused = local(x)
    assert turned_on
    turned_on.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "usable", lambda *_: False)
        torch.testing.assert_close(fused, local(x), atol=1e-4, rtol=1e-4)


def test_they_are_off_unless_turned_on() -> None:
    assert not kernels.usable(torch.rand(1, 2, 2, 8), 8)
    assert isinstance(TransposedAttention(channels=8, heads=2, bias=False)(torch.rand(1, 4, 4, 8)), Tensor)
