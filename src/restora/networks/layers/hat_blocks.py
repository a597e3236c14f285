"""The parts of HAT, with their published names.

X. Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023, section 3.

Legend: B samples, C channels, H height, W width, w window side, o side of an overlapping window, n windows
in a photo, N = w*w, M = o*o, h heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from restora.networks.layers.blocks import conv1x1, conv3x3
from restora.networks.layers.channels_last import LayerNorm, Linear, convolve
from restora.networks.layers.swin_blocks import Blocks, Mlp, WindowAttention
from restora.networks.layers.windows import (
    attend,
    drop_path,
    from_windows,
    overlapping_windows,
    relative_position_bias,
    to_windows,
)

Connection = Literal["1conv", "identity"]


class ChannelAttention(nn.Module):
    """RCAN's channel attention under HAT's names: (B,C,H,W) -> same, each channel scaled by a gate."""

    def __init__(self, *, channels: int, squeeze: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv1x1(channels, channels // squeeze),
            nn.ReLU(inplace=True),
            conv1x1(channels // squeeze, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class ChannelAttentionBlock(nn.Module):
    """CAB (section 3.2), two convolutions and channel attention: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int, compress: int, squeeze: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            conv3x3(channels, channels // compress),
            nn.GELU(),
            conv3x3(channels // compress, channels),
            ChannelAttention(channels=channels, squeeze=squeeze),
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.cab, x_BHWC)


class HybridBlock(nn.Module):
    """Hybrid attention block (HAB, section 3.2): (B,H,W,C) -> same.

    The normalised input goes through window attention and, in parallel, through the channel-attention block,
    whose output is multiplied by `conv_scale`; the MLP follows.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: int,
        shift_by: int,
        compress: int,
        squeeze: int,
        conv_scale: float,
        mlp_ratio: float,
        drop: float,
    ) -> None:
        super().__init__()
        self.conv_scale, self.drop = conv_scale, drop
        self.norm1 = LayerNorm(channels)
        self.attn = WindowAttention(channels=channels, heads=heads, window=window, shift_by=shift_by)
        self.conv_block = ChannelAttentionBlock(channels=channels, compress=compress, squeeze=squeeze)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels=channels, hidden=int(channels * mlp_ratio))

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        normalised = self.norm1(x_BHWC)
        attended = self.attn(normalised, index, mask)
        x_BHWC = x_BHWC + drop_path(attended, self.drop, self.training)
        x_BHWC = torch.add(x_BHWC, self.conv_block(normalised), alpha=self.conv_scale)
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.drop, self.training)


class OverlappingAttention(nn.Module):
    """Overlapping cross-attention block (OCAB, section 3.3): (B,H,W,C) -> same.

    The queries of a window attend to the larger window around it; the MLP follows. `index` (N,M) are the rows
    of the bias table.
    """

    def __init__(self, *, channels: int, heads: int, window: int, side: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads, self.window, self.side = heads, window, side
        self.norm1 = LayerNorm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window + side - 1) ** 2, heads))
        self.proj = Linear(channels, channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels=channels, hidden=int(channels * mlp_ratio))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x_BHWC: Tensor, index: Tensor) -> Tensor:
        height, width, channels = x_BHWC.shape[1:]
        q_BHWC, kv_BHWC = self.qkv(self.norm1(x_BHWC)).split((channels, 2 * channels), dim=-1)
        q = to_windows(q_BHWC, self.window)  # (B*n,N,C)
        k, v = overlapping_windows(kv_BHWC, self.window, self.side).chunk(2, dim=-1)  # (B*n,M,C) each
        bias = relative_position_bias(self.relative_position_bias_table, index)  # (h,N,M)
        windows = self.proj(attend(q, k, v, heads=self.heads, bias=bias))
        x_BHWC = x_BHWC + from_windows(windows, self.window, height, width)
        return x_BHWC + self.mlp(self.norm2(x_BHWC))


class _Group(Blocks):
    def __init__(self, blocks: Sequence[nn.Module], overlapping: nn.Module) -> None:
        super().__init__(blocks)
        self.overlap_attn = overlapping


class ResidualGroup(nn.Module):
    """Residual hybrid attention group (RHAG): x + convolution(overlapping attention(blocks(x)))."""

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: int,
        side: int,
        compress: int,
        squeeze: int,
        conv_scale: float,
        mlp_ratio: float,
        drops: Sequence[float],
        connection: Connection,
    ) -> None:
        super().__init__()
        blocks = [
            HybridBlock(
                channels=channels,
                heads=heads,
                window=window,
                shift_by=position % 2 * (window // 2),
                compress=compress,
                squeeze=squeeze,
                conv_scale=conv_scale,
                mlp_ratio=mlp_ratio,
                drop=drop,
            )
            for position, drop in enumerate(drops)
        ]
        overlapping = OverlappingAttention(
            channels=channels, heads=heads, window=window, side=side, mlp_ratio=mlp_ratio
        )
        self.residual_group = _Group(blocks, overlapping)
        self.conv = conv3x3(channels, channels) if connection == "1conv" else nn.Identity()

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor, around: Tensor) -> Tensor:
        """`index` (N,N) and `mask` (n,N,N) for the blocks, `around` (N,M) for the overlapping attention."""
        y = x_BHWC
        for block in self.residual_group.blocks:
            y = block(y, index, mask)
        return x_BHWC + convolve(self.conv, self.residual_group.overlap_attn(y, around))
