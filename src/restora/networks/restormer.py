"""Restormer: a four-level transformer U-Net that attends across channels instead of positions.

S. W. Zamir, A. Arora, S. Khan, M. Hayat, F. S. Khan, M.-H. Yang, "Restormer: Efficient Transformer for
High-Resolution Image Restoration", CVPR 2022. Parameter names are those of the authors' checkpoints
(`patch_embed.proj`, `encoder_level1.0.norm1.body.weight`, ...).

Notable: the same numbers as the authors' code by a shorter way. Features stay channels-last, so that layer
norm and 1x1 convolutions read contiguous rows; queries and keys are never normalised, their norms divide
the small attention matrix instead; the output projection is multiplied into that matrix, which then meets
the values once.

Legend: B samples, H height, W width, N = H*W positions, C channels, h heads, c = C/h, E hidden channels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.blocks import count_children
from restora.networks.channels_last import (
    bias_free_layer_norm,
    convolve,
    layer_norm,
    linear,
    pointwise,
    to_channels_first,
    to_channels_last,
)

NormType = Literal["BiasFree", "WithBias"]


class _NormBody(nn.Module):
    """The norm's parameters, a level down because the checkpoints keep them there."""

    def __init__(self, *, channels: int, norm: NormType) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if norm == "WithBias" else None


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B,H,W,C); "BiasFree" keeps the mean, divides by the deviation."""

    def __init__(self, *, channels: int, norm: NormType) -> None:
        super().__init__()
        self.body = _NormBody(channels=channels, norm=norm)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        weight, bias = self.body.weight, self.body.bias
        if bias is None:
            return bias_free_layer_norm(x_BHWC, weight)
        return layer_norm(x_BHWC, weight, bias)


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
        attention = self._attention(q_BNC, k_BNC)  # (B,h,c,c)
        # project_out(attention @ v) = (project_out @ attention) @ v: one C x C matrix per sample
        project = self.project_out.weight.view(v_BNC.shape[-1], self.heads, -1)  # (C,h,c)
        matrix = torch.einsum("ohc,bhcd->bhdo", project, attention).flatten(1, 2)  # (B,C,C)
        y_BNC = v_BNC @ matrix
        if self.project_out.bias is not None:
            y_BNC = y_BNC + self.project_out.bias.to(y_BNC.dtype)
        return y_BNC.view(*qkv_BHWC.shape[:3], -1)

    def _attention(self, q_BNC: Tensor, k_BNC: Tensor) -> Tensor:
        """softmax(temperature * cosine of each query channel with each key channel), per head: (B,h,c,c)."""
        q, k = (
            t.view(*t.shape[:-1], self.heads, -1).permute(0, 2, 3, 1) for t in (q_BNC, k_BNC)
        )  # (B,h,c,N)
        scores = q @ k.transpose(-2, -1)
        q_norm, k_norm = (_norms(t).view(t.shape[0], self.heads, -1) for t in (q_BNC, k_BNC))  # (B,h,c)
        cosine = scores / (q_norm.unsqueeze(-1) * k_norm.unsqueeze(-2))
        return (cosine * self.temperature).softmax(dim=-1)


_ALIGNED = 16
"""Channels that a vector register of float32 holds, and of which a tensor core wants a multiple."""


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward (section 3.2): (B,H,W,C) -> same by gelu(x1) * x2 of 2E hidden channels.

    The paper's E are 127, 255, 510 and 1,021. Weights are filled up with zeros to a multiple of 16 for the
    time of a pass, and the halves computed apart, so that the gate reads and writes whole rows: a training
    step is 1.1 times as fast on a CPU, with the same numbers (benchmarks/NOTES.md).
    """

    def __init__(self, *, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or x_BHWC.is_meta:  # graphs keep the convolutions, counts the widths
            x1, x2 = convolve(self.dwconv, pointwise(self.project_in, x_BHWC)).chunk(2, dim=-1)
            return pointwise(self.project_out, F.gelu(x1) * x2)  # (B,H,W,E) each
        x1, x2 = (self._hidden(x_BHWC, half) for half in (0, 1))  # (B,H,W,E') each
        weight = _filled_up(self.project_out.weight.flatten(1), 1)
        return linear(F.gelu(x1) * x2, weight, self.project_out.bias)

    def _hidden(self, x_BHWC: Tensor, half: int) -> Tensor:
        """One half of the hidden channels, (B,H,W,E'), contiguous and filled up to E'."""
        inner, outer = (
            (_filled_up(conv.weight.chunk(2)[half], 0), _half_bias(conv, half))
            for conv in (self.project_in, self.dwconv)
        )
        y = to_channels_first(linear(x_BHWC, inner[0].flatten(1), inner[1]))
        return to_channels_last(F.conv2d(y, *outer, padding=1, groups=y.shape[1]))


def _norms(x_BNC: Tensor) -> Tensor:
    """The length of each channel over all positions, (B,C), at least 1e-12.

    In float32 by the sum of squares, twice as fast on a CPU as the norm along a strided axis; lower
    precisions overflow in the square.
    """
    if x_BNC.dtype in (torch.float32, torch.float64):
        return (x_BNC * x_BNC).sum(1).clamp_min(1e-24).sqrt()
    return torch.linalg.vector_norm(x_BNC, dim=1).clamp_min(1e-12)


def _half_bias(conv: nn.Conv2d, half: int) -> Tensor | None:
    return None if conv.bias is None else _filled_up(conv.bias.chunk(2)[half], 0)


def _filled_up(x: Tensor, dim: int) -> Tensor:
    """Zeros behind `x` along `dim`, up to a multiple of `_ALIGNED`."""
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
        x_BHWC = x_BHWC + self.attn(self.norm1(x_BHWC))
        return x_BHWC + self.ffn(self.norm2(x_BHWC))


class _PatchEmbed(nn.Module):
    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)


class Downsample(nn.Module):
    """(B,H,W,C) -> (B,H/2,W/2,2C): halve the channels, then gather 2 x 2 positions into one."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.body, x_BHWC)


class Upsample(nn.Module):
    """(B,H,W,C) -> (B,2H,2W,C/2): double the channels, then spread each over 2 x 2 positions."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.body, x_BHWC)


class Restormer(Network):
    """The whole network: residual output, except in the dual-pixel task (two input photos, one output photo).

    `blocks` and `heads` go from the full resolution to the lowest; the decoder mirrors them. The authors
    train deblurring and deraining with the norm "WithBias", all denoising with "BiasFree".
    """

    family: ClassVar[str] = "transformer"
    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "derain", "jpeg")
    size_multiple = 8

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        bias: bool = False,
        norm: NormType = "BiasFree",
        dual_pixel: bool = False,
    ) -> None:
        super().__init__()
        _check(in_channels, out_channels, channels, blocks, heads, norm, dual_pixel)
        self.in_channels, self.out_channels = in_channels, out_channels

        def stage(level: int, width: int, count: int) -> nn.Sequential:
            blocks = (
                TransformerBlock(
                    channels=width, heads=heads[level], expansion=expansion, bias=bias, norm=norm
                )
                for _ in range(count)
            )
            return nn.Sequential(*blocks)

        c = channels
        self.patch_embed = _PatchEmbed(in_channels=in_channels, channels=c)
        self.encoder_level1 = stage(0, c, blocks[0])
        self.down1_2 = Downsample(channels=c)
        self.encoder_level2 = stage(1, 2 * c, blocks[1])
        self.down2_3 = Downsample(channels=2 * c)
        self.encoder_level3 = stage(2, 4 * c, blocks[2])
        self.down3_4 = Downsample(channels=4 * c)
        self.latent = stage(3, 8 * c, blocks[3])
        self.up4_3 = Upsample(channels=8 * c)
        self.reduce_chan_level3 = nn.Conv2d(8 * c, 4 * c, 1, bias=bias)
        self.decoder_level3 = stage(2, 4 * c, blocks[2])
        self.up3_2 = Upsample(channels=4 * c)
        self.reduce_chan_level2 = nn.Conv2d(4 * c, 2 * c, 1, bias=bias)
        self.decoder_level2 = stage(1, 2 * c, blocks[1])
        self.up2_1 = Upsample(channels=2 * c)
        # the highest decoder keeps both halves of its skip: 2C channels, no reduction
        self.decoder_level1 = stage(0, 2 * c, blocks[0])
        self.refinement = stage(0, 2 * c, refinement_blocks)
        self.skip_conv = nn.Conv2d(c, 2 * c, 1, bias=bias) if dual_pixel else None
        self.output = nn.Conv2d(2 * c, out_channels, 3, padding=1, bias=bias)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        embedded = to_channels_last(self.patch_embed.proj(x))  # (B,H,W,C)
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))  # (B,H/2,W/2,2C)
        level3 = self.encoder_level3(self.down2_3(level2))  # (B,H/4,W/4,4C)
        y = self.latent(self.down3_4(level3))  # (B,H/8,W/8,8C)
        y = pointwise(self.reduce_chan_level3, torch.cat((self.up4_3(y), level3), dim=-1))
        y = self.decoder_level3(y)
        y = pointwise(self.reduce_chan_level2, torch.cat((self.up3_2(y), level2), dim=-1))
        y = self.decoder_level2(y)
        y = self.decoder_level1(torch.cat((self.up2_1(y), level1), dim=-1))  # (B,H,W,2C)
        y = self.refinement(y)
        if self.skip_conv is not None:
            return self.output(to_channels_first(y + pointwise(self.skip_conv, embedded)))
        return self.output(to_channels_first(y)) + x

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments that a state dict of this architecture was made with; None for
        another's."""
        stages = ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]
        if "patch_embed.proj.weight" not in state or not all(
            f"{s}.0.attn.temperature" in state for s in stages
        ):
            return None
        channels, in_channels = state["patch_embed.proj.weight"].shape[:2]
        hidden = [state[f"{stage}.0.ffn.project_out.weight"].shape[1] for stage in stages]
        return {
            "in_channels": in_channels,
            "out_channels": state["output.weight"].shape[0],
            "channels": channels,
            "blocks": [count_children(state, stage) for stage in stages],
            "refinement_blocks": count_children(state, "refinement"),
            "heads": [state[f"{stage}.0.attn.temperature"].shape[0] for stage in stages],
            "expansion": _shortest_factor([channels * 2**level for level in range(4)], hidden),
            "bias": "latent.0.attn.qkv.bias" in state,
            "norm": "WithBias" if "latent.0.norm1.body.bias" in state else "BiasFree",
            "dual_pixel": "skip_conv.weight" in state,
        }


def _shortest_factor(widths: Sequence[int], hidden: Sequence[int]) -> float:
    """The number of fewest decimals by which all `widths`, rounded down after multiplying, give `hidden`."""
    low = max(h / w for w, h in zip(widths, hidden, strict=True))
    high = min((h + 1) / w for w, h in zip(widths, hidden, strict=True))
    rounded = (math.ceil(low * 10**decimals) / 10**decimals for decimals in range(9))
    return next((factor for factor in rounded if factor < high), low)


def _check(
    in_channels: int,
    out_channels: int,
    channels: int,
    blocks: Sequence[int],
    heads: Sequence[int],
    norm: str,
    dual_pixel: bool,
) -> None:
    if len(blocks) != 4 or len(heads) != 4:
        raise ValueError(
            f"Restormer has four levels: network.blocks and network.heads need four numbers each, "
            f"got {list(blocks)} and {list(heads)}"
        )
    for level, count in enumerate(heads):
        if channels * 2**level % count:
            raise ValueError(
                f"level {level + 1} of Restormer has {channels * 2**level} channels, {count} heads do not "
                f"divide: change network.channels or network.heads"
            )
    if norm not in ("BiasFree", "WithBias"):
        raise ValueError(f'network.norm is "BiasFree" or "WithBias", got "{norm}"')
    if not dual_pixel and in_channels != out_channels:
        raise ValueError(
            f"Restormer adds its input to its output, so both have the same channels, got {in_channels} and "
            f"{out_channels} (network.dual_pixel=true is the variant with two input photos)"
        )
