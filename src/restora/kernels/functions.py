"""The fused operations with their derivatives, on features (B,H,W,C).

Features are read once in the forward pass; the backward pass recomputes intermediate results.

`norm_linear` is a layer norm and a 1x1 convolution, `depthwise_gate` a depthwise 3x3 convolution, NAFNet's
gate and the sums for its channel attention, `depthwise_gelu_gate` the same with the gate of Restormer's
feed-forward block, `scaled_linear` and `gated_linear` the last convolution and residual sum of the two halves
of NAFNet's block. The caller casts weights and biases to the dtype of the features (`like`), so that autograd
casts their gradients back to float32.

Legend: B samples, H height, W width, C channels, N output channels, M = B*H*W rows.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from restora.kernels import programs

_SHARES = 64
"""Parts of the rows whose weight gradients are computed separately and then summed in a fixed order. Atomic
additions would not be deterministic."""
_BAND = 16
"""Rows of a photo that one program of the depthwise convolution loops over."""


def like(x: Tensor, *weights: Tensor | None) -> list[Any]:
    """Weights cast to the dtype of the features, contiguous; None stays None."""
    return [None if weight is None else weight.to(x.dtype).contiguous() for weight in weights]


def norm_linear(
    x_BHWC: Tensor,
    gain: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    centred: bool = True,
) -> Tensor:
    """`F.linear(layer_norm(x), weight, bias)`: (B,H,W,C), weight (N,C) -> (B,H,W,N).

    Without `centred` the norm divides by the standard deviation without subtracting the mean (Restormer's).
    """
    y: Tensor = _NormLinear.apply(x_BHWC, gain, shift, weight, bias, eps, centred)
    return y


def depthwise_gate(x_BHWC: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the halves of a depthwise convolution, (B,H,W,C), and its sums (B,C) in float32.

    The input is (B,H,W,2C), weight (2C,1,3,3), bias (2C); sums are over the pixels of each photo.
    """
    pair: tuple[Tensor, Tensor] = _DepthwiseGate.apply(x_BHWC, weight, bias, False)
    return pair


def depthwise_gelu_gate(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(y1) * y2, (B,H,W,C), of the halves of a depthwise convolution; inputs as in `depthwise_gate`."""
    y: Tensor
    y, _ = _DepthwiseGate.apply(x_BHWC, weight, bias, True)
    return y


def scaled_linear(x_BHWC: Tensor, y_BHWC: Tensor, factor: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x + (y * factor) weight^T + bias: x (B,H,W,N), y (B,H,W,C), factor (B,C), weight (N,C)."""
    z: Tensor = _GatedLinear.apply(x_BHWC, y_BHWC, factor, weight, bias)
    return z


def gated_linear(x_BHWC: Tensor, y_BHWC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x + (y1 * y2) weight^T + bias: x (B,H,W,N), y (B,H,W,2C) with halves y1 and y2, weight (N,C)."""
    z: Tensor = _GatedLinear.apply(x_BHWC, y_BHWC, None, weight, bias)
    return z


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        centred: bool,
    ) -> Tensor:
        x = x.contiguous()
        rows, (outs, channels) = x.numel() // x.shape[-1], weight.shape
        y = x.new_empty(*x.shape[:-1], outs)
        means, deviations = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
        tile = _tile(channels, outs)
        programs.norm_linear[(triton.cdiv(rows, tile["BM"]),)](
            x, gain, gain if shift is None else shift, weight, weight if bias is None else bias, y, means,
            deviations, rows, outs, eps, C=channels, CENTRED=centred, SHIFT=shift is not None,
            BIAS=bias is not None, PRECISION=_precision(x), **tile,
        )  # fmt: skip
        ctx.save_for_backward(x, gain, shift, weight, means, deviations)
        ctx.centred, ctx.biased = centred, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, shift, weight, means, deviations = ctx.saved_tensors
        grad = grad.contiguous()
        rows, (outs, channels) = x.numel() // x.shape[-1], weight.shape
        grad_x, tile = torch.empty_like(x), _tile(channels, outs)
        programs.norm_linear_backward[(triton.cdiv(rows, tile["BM"]),)](
            grad, x, gain, weight, means, deviations, grad_x, rows, outs, C=channels,
            CENTRED=ctx.centred, PRECISION=_precision(x), **tile,
        )  # fmt: skip
        # products with the row before gain and shift; their gradients follow by the chain rule
        products, sums = _weight_products(
            grad, x, weight, 0 if ctx.centred else 1, means=means, deviations=deviations
        )
        weights = weight.float()
        grad_weight = products * gain.float()
        if shift is not None:
            grad_weight = grad_weight + sums[:, None] * shift.float()
        return (
            grad_x,
            (weights * products).sum(0).to(gain.dtype),
            None if shift is None else (sums @ weights).to(shift.dtype),
            grad_weight.to(weight.dtype),
            sums.to(weight.dtype) if ctx.biased else None,
            None,
            None,
        )


class _DepthwiseGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool
    ) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        ctx.gelu, ctx.biased = gelu, bias is not None
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        batch, height, width, channels = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2
        taps = weight.flatten(1).t().contiguous()  # (9,2C)
        grid, tile = _bands(batch, height, width, channels)
        y = x.new_empty(batch, height, width, channels)
        sums = x.new_empty(grid[0] * grid[1], channels, dtype=torch.float32)
        bands = grid[0] // batch
        programs.depthwise_gate[grid](
            x, taps, bias, y, sums, height, width, bands, C=channels, GELU=gelu, **tile
        )
        ctx.save_for_backward(x, taps, bias)
        return y, sums.view(batch, -1, channels).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, bias = ctx.saved_tensors
        batch, height, width, channels = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2
        grid, tile = _bands(batch, height, width, channels)
        slopes = torch.empty_like(x)
        products = x.new_empty(grid[0] * grid[1], 10, 2 * channels, dtype=torch.float32)
        programs.depthwise_gate_backward[grid](
            x, taps, bias, grad.contiguous(), grad_sum.contiguous(), slopes, products,
            height, width, grid[0] // batch, C=channels, GELU=ctx.gelu, **tile,
        )  # fmt: skip
        grad_x = torch.empty_like(x)
        grid, tile = _bands(batch, height, width, 2 * channels)
        programs.depthwise_transposed[grid](
            slopes, taps, grad_x, height, width, grid[0] // batch, C=2 * channels, **tile
        )
        total = products.sum(0)
        grad_weight = total[:9].t().reshape(2 * channels, 1, 3, 3)
        grad_bias = total[9].to(bias.dtype) if ctx.biased else None
        return grad_x, grad_weight.to(taps.dtype), grad_bias, None


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, source: Tensor, factor: Tensor | None, weight: Tensor, bias: Tensor
    ) -> Tensor:
        x, source = x.contiguous(), source.contiguous()
        length, (outs, channels) = x.shape[1] * x.shape[2], weight.shape
        y, tile = torch.empty_like(x), _tile(channels, outs)
        factors = source if factor is None else factor.contiguous()
        programs.gated_linear[(triton.cdiv(length, tile["BM"]), x.shape[0])](
            x, source, factors, weight, bias, y, length, outs, C=channels, HALVES=factor is None,
            PRECISION=_precision(x), **tile,
        )  # fmt: skip
        ctx.save_for_backward(source, factor, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        source, factor, weight = ctx.saved_tensors
        grad = grad.contiguous()
        batch, length, (outs, channels) = grad.shape[0], grad.shape[1] * grad.shape[2], weight.shape
        tile, grad_source = _tile(channels, outs), torch.empty_like(source)
        grid = (triton.cdiv(length, tile["BM"]), batch)
        pieces = grad.new_empty(batch, grid[0], channels, dtype=torch.float32)
        factors = source if factor is None else factor.contiguous()
        programs.gated_linear_backward[grid](
            grad, source, factors, weight, grad_source, pieces, length, outs, C=channels,
            HALVES=factor is None, PRECISION=_precision(grad), **tile,
        )  # fmt: skip
        products, sums = _weight_products(
            grad, source, weight, 3 if factor is None else 2, factor=factors, per_sample=length
        )
        return (
            grad,
            grad_source,
            None if factor is None else pieces.sum(1).to(factor.dtype),
            products.to(weight.dtype),
            sums.to(weight.dtype),
        )


def _weight_products(
    grad: Tensor,
    source: Tensor,
    weight: Tensor,
    mode: int,
    *,
    means: Tensor | None = None,
    deviations: Tensor | None = None,
    factor: Tensor | None = None,
    per_sample: int = 1,
) -> tuple[Tensor, Tensor]:
    """grad^T h (N,C) and the sum of grad over its rows (N), float32; `mode` as in the program."""
    rows, (outs, channels) = grad.numel() // grad.shape[-1], weight.shape
    tile = {"BM": 32, "BN": min(64, _power(outs)), "BC": min(64, _power(channels))}
    shares = min(_SHARES, triton.cdiv(rows, tile["BM"]))
    share = triton.cdiv(rows, shares)
    products = grad.new_empty(shares, outs, channels, dtype=torch.float32)
    sums = grad.new_empty(shares, outs, dtype=torch.float32)
    grid = (triton.cdiv(outs, tile["BN"]), triton.cdiv(channels, tile["BC"]), shares)
    programs.weight_products[grid](
        grad, source, source if factor is None else factor, source if means is None else means,
        source if deviations is None else deviations, products, sums, rows, outs, per_sample, share,
        C=channels, MODE=mode, PRECISION=_precision(grad), **tile,
    )  # fmt: skip
    return products.sum(0), sums.sum(0)


def _tile(channels: int, outs: int) -> dict[str, int]:
    """Sizes of a block in rows, outputs and channels: all channels, fewer rows for many channels, at most all
    outputs."""
    whole = _power(channels)
    most = min(64, _power(outs))
    return {"BC": whole, "BM": max(16, min(64, 8192 // whole)), "BN": max(16, min(most, 16384 // whole))}


def _power(number: int) -> int:
    """The smallest power of two not below `number`, and at least 16, the minimum of `tl.dot`."""
    return max(16, triton.next_power_of_2(number))


def _bands(batch: int, height: int, width: int, channels: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid of a depthwise convolution and its block sizes."""
    tile = {"BC": min(32, _power(channels)), "BL": min(32, _power(width)), "ROWS": min(_BAND, height)}
    grid = (
        batch * triton.cdiv(height, tile["ROWS"]),
        triton.cdiv(width, tile["BL"]),
        triton.cdiv(channels, tile["BC"]),
    )
    return grid, tile


def _precision(x: Tensor) -> str:
    """The precision of `tl.dot`: exact float32 products unless the user allows TF32."""
    if not x.is_cuda:
        return "interpreted"
    # torch.compile cannot trace the newer `fp32_precision`
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
