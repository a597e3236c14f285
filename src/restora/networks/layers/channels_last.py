"""Operations on contiguous (B,H,W,C) features, which take most of the time of transformers and NAFNet.

A 1x1 convolution is a matrix product over contiguous rows, layer norm reads each row once, and a k x k
convolution takes the same memory as (B,C,H,W) in torch's channels_last format, so there are no copies between
them.

Legend: B samples, H height, W width, C channels.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from restora.networks.layers.formulations import fused_by_compiler, on_cpu


def to_channels_last(x_BCHW: Tensor) -> Tensor:
    """(B,C,H,W) -> contiguous (B,H,W,C); a view if the input is in channels_last."""
    return x_BCHW.permute(0, 2, 3, 1).contiguous()


def to_channels_first(x_BHWC: Tensor) -> Tensor:
    """(B,H,W,C) -> (B,C,H,W) as a view in the channels_last memory format."""
    return x_BHWC.permute(0, 3, 1, 2)


_SMALL = 20480
"""Input size (elements, for a batch of one) up to which torch's convolutions do not use oneDNN."""


def _is_intel() -> bool:
    """Whether the CPU is Intel's: on an AMD with AVX-512, MKL's products have half the speed of oneDNN's.

    On an AMD with AVX2 alone they are equally fast, and so are training steps (benchmarks/NOTES.md).
    """
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


FAST_PRODUCTS = _is_intel()
"""Whether matrix products are as fast as convolutions. It is a constant because torch.compile cannot trace
reading a file."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` by the fastest available kernels: (...,C), (C',C), (C',) -> (...,C').

    On a CPU the rows become the pixels of one 1x1 convolution by oneDNN, which is up to 1.5 times as fast as
    a matrix product by MKL on Intel CPUs, and twice as fast on an AMD with AVX-512. Its weight gradient is
    the slowest part, so on Intel CPUs the backward pass uses matrix products (benchmarks/NOTES.md). Small
    inputs use `F.linear`, as torch's convolutions would take a slow path.
    """
    if (
        not on_cpu(x)
        or x.dtype != torch.float32
        or torch.compiler.is_exporting()
        or x.numel() <= _SMALL
        or autocast_enabled(x)
    ):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    if FAST_PRODUCTS and torch.is_grad_enabled():
        y: Tensor = _LinearByProducts.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    else:
        y = _linear_by_convolution(rows, weight, bias)
    return y.view(*x.shape[:-1], weight.shape[0])


def _linear_by_convolution(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N,C) -> (N,C'). The dilation has no effect on a 1x1 kernel; without it torch does not use oneDNN on a
    single thread."""
    pixels = rows[None, None].permute(0, 3, 1, 2)  # (1,C,1,N) in the channels_last format
    y = F.conv2d(pixels, weight[:, :, None, None], bias, dilation=2)
    return y.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])


class _LinearByProducts(torch.autograd.Function):
    """Forward by convolution, backward by matrix products."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _linear_by_convolution(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        grad_bias = None
        if for_bias:  # as a product: twice as fast as a sum
            grad_bias = (grad.new_ones(1, grad.shape[0]) @ grad)[0]
        return (
            grad @ weight if for_rows else None,
            grad.t() @ rows if for_weight else None,
            grad_bias,
        )


def pointwise(conv: nn.Conv2d, x_BHWC: Tensor) -> Tensor:
    """A 1x1 convolution computed as a matrix product: (B,H,W,C) -> (B,H,W,C')."""
    return linear(x_BHWC, conv.weight.flatten(1), conv.bias)


def convolve(conv: nn.Module, x_BHWC: Tensor) -> Tensor:
    """A convolution, or a stack of modules on (B,C,H,W), applied to (B,H,W,C)."""
    return to_channels_last(conv(to_channels_first(x_BHWC)))


_WITH_AUTOCAST = frozenset(
    kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)
)
"""Device types with autocast; a constant because torch.compile cannot trace the query."""


def autocast_enabled(x: Tensor) -> bool:
    """Whether autocast is enabled for the device of `x`; False on the meta device."""
    return x.device.type in _WITH_AUTOCAST and torch.is_autocast_enabled(x.device.type)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the last axis in the dtype of `x`.

    Autocast would compute and return float32, which doubles the memory traffic of the residual stream; the
    kernel accumulates in float32 anyway.
    """
    if x.dtype == weight.dtype or not autocast_enabled(x):
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps)


class Linear(nn.Linear):
    """A linear layer on the last axis, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis, by `layer_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class _BiasFreeLayerNorm(torch.autograd.Function):
    """y = x r w with r = (var(x) + eps)^-1/2, by the fused layer-norm kernels (3 times faster than var on a
    CPU).

    Forward: layer norm without bias is (x - m) r w, so m r w is added. Backward: called with mean 0, the
    fused kernel gives the correct gradient of w, and for x the sum d = r (g w) - r mean(g w) - x r^3 mean(g w
    x), whose mean is -m r^3 mean(g w x). The gradient of x is r (g w) - (x - m) r^3 mean(g w x) = d - mean(d)
    + r mean(g w).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, None, eps)
        ctx.save_for_backward(x, weight, rstd)
        return torch.addcmul(y, (mean * rstd).to(y.dtype), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, torch.zeros_like(rstd), rstd, weight, None, (True, True, False)
        )
        row = rstd * (grad @ weight).unsqueeze(-1) / weight.numel() - grad_x.mean(-1, keepdim=True)
        return grad_x + row.to(grad_x.dtype), grad_weight, None


def bias_free_layer_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Divides by the standard deviation of the last axis, without centring (Restormer's "BiasFree" norm)."""
    if fused_by_compiler(x):
        values = x.float()
        deviation = (values.var(-1, correction=0, keepdim=True) + eps).rsqrt()
        return (values * deviation * weight).to(x.dtype)
    if not autocast_enabled(x):
        return _BiasFreeLayerNorm.apply(x, weight.to(x.dtype), eps)  # type: ignore[no-untyped-call]
    with torch.autocast(x.device.type, enabled=False):
        return _BiasFreeLayerNorm.apply(x, weight.to(x.dtype), eps)  # type: ignore[no-untyped-call]
