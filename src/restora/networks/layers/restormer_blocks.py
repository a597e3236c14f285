"""The parts of Restormer, with their published names.

S. W. Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022,
section 3.

Notable: the same results as the authors' code with less work. Queries and keys are not normalised; the small
attention matrix is divided by their norms instead. The output projection is multiplied into that matrix,
which is then multiplied by the values once.

Legend: B samples, H height, W width, N = H*W positions, C channels, h heads, c = C/h, E hidden channels.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora import kernels
from restora.networks.layers.channels_last import (
    bias_free_layer_norm,
    convolve,
    layer_norm,
    linear,
    pointwise,
    to_channels_first,
    to_channels_last,
)
from restora.networks.layers.formulations import on_cpu

NormType = Literal["BiasFree", "WithBias"]


class _NormBody(nn.Module):
    """The norm's parameters, nested as in the checkpoints."""

    def __init__(self, *, channels: int, norm: NormType) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if norm == "WithBias" else None


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B,H,W,C); "BiasFree" only divides by the standard deviation."""

    def __init__(self, *, channels: int, norm: NormType) -> None:
        super().__init__()
        self.body = _NormBody(channels=channels, norm=norm)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        weight, bias = self.body.weight, self.body.bias
        if bias is None:
            return bias_free_layer_norm(x_BHWC, weight)
        return layer_norm(x_BHWC, weight, bias)

    def then(self, conv: nn.Conv2d, x_BHWC: Tensor) -> Tensor:
        """The 1x1 convolution `conv` of the normalised features, by a fused kernel if available."""
        if not kernels.usable(x_BHWC, x_BHWC.shape[-1]):
            return pointwise(conv, self(x_BHWC))
        from restora.kernels import functions

        gain, shift, weight, bias = functions.like(
            x_BHWC, self.body.weight, self.body.bias, conv.weight.flatten(1), conv.bias
        )
        return functions.norm_linear(x_BHWC, gain, shift, weight, bias, 1e-5, centred=shift is not None)


class TransposedAttention(nn.Module):
    """Multi-Dconv head transposed attention (section 3.1): (B,H,W,C) -> same, one c x c matrix per head."""

    def __init__(self, *, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.attend(convolve(self.qkv_dwconv, pointwise(self.qkv, x_BHWC)))

    def attend(self, qkv_BHWC: Tensor) -> Tensor:
        """Queries, keys and values, (B,H,W,3C) -> the projected result, (B,H,W,C)."""
        q_BNC, k_BNC, v_BNC = qkv_BHWC.flatten(1, 2).chunk(3, dim=-1)
        attention = self.statistic(q_BNC, k_BNC)  # (B,h,c,c)
        # project_out(attention @ v) = (project_out @ attention) @ v: one C x C matrix per sample
        project = self.project_out.weight.view(v_BNC.shape[-1], self.heads, -1)  # (C,h,c)
        matrix = torch.einsum("ohc,bhcd->bhdo", project, attention).flatten(1, 2)  # (B,C,C)
        y_BNC = v_BNC @ matrix
        if self.project_out.bias is not None:
            y_BNC = y_BNC + self.project_out.bias.to(y_BNC.dtype)
        return y_BNC.view(*qkv_BHWC.shape[:3], -1)

    def statistic(self, q_BNC: Tensor, k_BNC: Tensor) -> Tensor:
        """softmax(temperature * cosine similarity of query and key channels), per head: (B,h,c,c)."""
        q, k = (
            t.view(*t.shape[:-1], self.heads, -1).permute(0, 2, 3, 1) for t in (q_BNC, k_BNC)
        )  # (B,h,c,N)
        q_norm, k_norm = (_norms(t).view(t.shape[0], self.heads, -1, 1) for t in (q_BNC, k_BNC))  # (B,h,c,1)
        if q.dtype == torch.float16:  # the sums over all positions would overflow
            cosine = (q / q_norm) @ (k / k_norm).transpose(-2, -1)
        else:
            cosine = q @ k.transpose(-2, -1) / (q_norm * k_norm.transpose(-2, -1))
        return (cosine * self.temperature).softmax(dim=-1)


_ALIGNED = 16
"""Float32 channels in a vector register; also the multiple that tensor cores need."""


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward (section 3.2): (B,H,W,C) -> same by gelu(x1) * x2 of 2E hidden channels.

    E is 127, 255, 510 and 1,021 in the paper. Weights are zero-padded to a multiple of 16 in each pass. On a
    CPU the halves are computed separately, so that the gate reads and writes contiguous rows: a training step
    is 1.1 times as fast, with the same results (benchmarks/NOTES.md).
    """

    def __init__(self, *, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or x_BHWC.is_meta:  # graphs keep convolutions, MAC counts the widths
            x1, x2 = convolve(self.dwconv, pointwise(self.project_in, x_BHWC)).chunk(2, dim=-1)
            return pointwise(self.project_out, F.gelu(x1) * x2)  # (B,H,W,E) each
        if on_cpu(x_BHWC):
            x1, x2 = (self._hidden(x_BHWC, half) for half in (0, 1))  # (B,H,W,E') each
        else:
            (inner, inner_bias), (outer, outer_bias) = map(_both_halves, (self.project_in, self.dwconv))
            y = to_channels_first(linear(x_BHWC, inner.flatten(1), inner_bias))
            y = to_channels_last(F.conv2d(y, outer, outer_bias, padding=1, groups=y.shape[1]))  # (B,H,W,2E')
            x1, x2 = y.chunk(2, dim=-1)
        weight = _filled_up(self.project_out.weight.flatten(1), 1)
        return linear(F.gelu(x1) * x2, weight, self.project_out.bias)

    def fused(self, x_BHWC: Tensor, norm: ChannelNorm) -> Tensor:
        """x + feed-forward(norm(x)) by the fused kernels, (B,H,W,C) -> same.

        The hidden channels are written twice instead of six times, and neither gate nor GELU is kept for the
        backward pass.
        """
        from restora.kernels import functions

        last = _filled_up(self.project_out.weight.flatten(1), 1)
        inner, inner_bias, outer, outer_bias, closing, bias = functions.like(
            x_BHWC, *_both_halves(self.project_in), *_both_halves(self.dwconv), last, self.project_out.bias
        )
        gain, shift = functions.like(x_BHWC, norm.body.weight, norm.body.bias)
        y = functions.norm_linear(
            x_BHWC, gain, shift, inner.flatten(1), inner_bias, 1e-5, centred=shift is not None
        )  # (B,H,W,2E')
        return x_BHWC + F.linear(functions.depthwise_gelu_gate(y, outer, outer_bias), closing, bias)

    def _hidden(self, x_BHWC: Tensor, half: int) -> Tensor:
        """One half of the hidden channels, (B,H,W,E'), contiguous and zero-padded to E'."""
        inner, outer = (
            (_filled_up(conv.weight.chunk(2)[half], 0), _half_bias(conv, half))
            for conv in (self.project_in, self.dwconv)
        )
        y = to_channels_first(linear(x_BHWC, inner[0].flatten(1), inner[1]))
        return to_channels_last(F.conv2d(y, *outer, padding=1, groups=y.shape[1]))


def _norms(x_BNC: Tensor) -> Tensor:
    """The L2 norm of each channel over all positions, (B,C), at least 1e-12.

    In float32 it is computed from the sum of squares, twice as fast on a CPU as the norm along a strided
    axis; in lower precisions the squares would overflow.
    """
    if x_BNC.dtype in (torch.float32, torch.float64):
        return (x_BNC * x_BNC).sum(1).clamp_min(1e-24).sqrt()
    return torch.linalg.vector_norm(x_BNC, dim=1).clamp_min(1e-12)


def _both_halves(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, with each half of the outputs zero-padded separately."""
    weight, bias = (
        None if value is None else torch.cat([_filled_up(half, 0) for half in value.chunk(2)])
        for value in (conv.weight, conv.bias)
    )
    assert weight is not None
    return weight, bias


def _half_bias(conv: nn.Conv2d, half: int) -> Tensor | None:
    return None if conv.bias is None else _filled_up(conv.bias.chunk(2)[half], 0)


def _filled_up(x: Tensor, dim: int) -> Tensor:
    """Zero-pads `x` at the end of `dim` to a multiple of `_ALIGNED`."""
    missing = -x.shape[dim] % _ALIGNED
    if not missing:
        return x
    return torch.cat((x, x.new_zeros(*x.shape[:dim], missing, *x.shape[dim + 1 :])), dim)


class TransformerBlock(nn.Module):
    """Attention then feed-forward, each normalised before and added to its input: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int, heads: int, expansion: float, bias: bool, norm: NormType) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels=channels, norm=norm)
        self.attn = TransposedAttention(channels=channels, heads=heads, bias=bias)
        self.norm2 = ChannelNorm(channels=channels, norm=norm)
        self.ffn = GatedFeedForward(channels=channels, expansion=expansion, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        qkv_BHWC = convolve(self.attn.qkv_dwconv, self.norm1.then(self.attn.qkv, x_BHWC))
        x_BHWC = x_BHWC + self.attn.attend(qkv_BHWC)
        if kernels.usable(x_BHWC, x_BHWC.shape[-1]):
            return self.ffn.fused(x_BHWC, self.norm2)
        return x_BHWC + self.ffn(self.norm2(x_BHWC))


class PatchEmbed(nn.Module):
    """Holds the first convolution, for its published name."""

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)


class Downsample(nn.Module):
    """(B,H,W,C) -> (B,H/2,W/2,2C): a convolution to C/2 channels, then a pixel unshuffle."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.body, x_BHWC)


class Upsample(nn.Module):
    """(B,H,W,C) -> (B,2H,2W,C/2): a convolution to 2C channels, then a pixel shuffle."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.body, x_BHWC)
