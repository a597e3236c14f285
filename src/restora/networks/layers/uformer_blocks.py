"""The parts of Uformer, with their published names.

Z. Wang et al., "Uformer: A General U-Shaped Transformer for Image Restoration", CVPR 2022, section 3.

Legend: B samples, C channels, H height, W width, w window side, n windows in a photo, N = w*w.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from restora.networks.layers.blocks import conv3x3
from restora.networks.layers.channels_last import LayerNorm, Linear, convolve, linear
from restora.networks.layers.swin_blocks import WindowAttention
from restora.networks.layers.windows import drop_path, relative_position_index, shifted_window_mask


class _Projection(nn.Module):
    """Separate parameters for queries and for keys/values, as in the checkpoints; applied as one matrix."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat((self.to_q.weight, self.to_kv.weight))
        return linear(x, weight, torch.cat((self.to_q.bias, self.to_kv.bias)))


class LocallyEnhancedFeedForward(nn.Module):
    """LeFF (section 3.2): linear, GELU, depthwise 3x3, GELU, linear: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(Linear(channels, hidden), nn.GELU())
        self.dwconv = nn.Sequential(conv3x3(hidden, hidden, groups=hidden), nn.GELU())
        self.linear2 = nn.Sequential(Linear(hidden, channels))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.linear2(convolve(self.dwconv, self.linear1(x_BHWC)))


class LeWinBlock(nn.Module):
    """Window attention and LeFF, each normalised before and added to its input: (B,H,W,C) -> same.

    With `modulated`, a learned value for each position and channel is added to every window before attention
    (the multi-scale restoration modulator of section 3.3).
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: int,
        shift_by: int,
        mlp_ratio: float,
        drop: float,
        modulated: int | None,
    ) -> None:
        super().__init__()
        self.drop = drop
        self.modulator = nn.Embedding(modulated**2, channels) if modulated else None
        self.norm1 = LayerNorm(channels)
        projection = _Projection(channels=channels)
        self.attn = WindowAttention(
            channels=channels, heads=heads, window=window, shift_by=shift_by, projection=projection
        )
        self.norm2 = LayerNorm(channels)
        self.mlp = LocallyEnhancedFeedForward(channels=channels, hidden=int(channels * mlp_ratio))

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        added = None if self.modulator is None else self.modulator.weight
        attended = self.attn(self.norm1(x_BHWC), index, mask, added=added)
        x_BHWC = x_BHWC + drop_path(attended, self.drop, self.training)
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.drop, self.training)


class Stage(nn.Module):
    """The blocks of one level, every second one shifted by half a window: (B,H,W,C) -> same."""

    relative_positions: Tensor

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: int,
        shifted: bool,
        mlp_ratio: float,
        drops: Sequence[float],
        modulated: int | None = None,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift_by = window // 2 if shifted and len(drops) > 1 else 0
        self.register_buffer("relative_positions", relative_position_index(window), persistent=False)
        self.blocks = nn.ModuleList(
            LeWinBlock(
                channels=channels,
                heads=heads,
                window=window,
                shift_by=position % 2 * self.shift_by,
                mlp_ratio=mlp_ratio,
                drop=drop,
                modulated=modulated,
            )
            for position, drop in enumerate(drops)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        mask = None
        if self.shift_by:
            height, width = x_BHWC.shape[1:3]
            mask = shifted_window_mask(height, width, size=self.window, by=self.shift_by, like=x_BHWC)
        for block in self.blocks:
            x_BHWC = block(x_BHWC, self.relative_positions, mask)
        return x_BHWC


class Downsample(nn.Module):
    """(B,H,W,C) -> (B,H/2,W/2,C') by a 4x4 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.conv, x_BHWC)


class Upsample(nn.Module):
    """(B,H,W,C) -> (B,2H,2W,C') by a 2x2 transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return convolve(self.deconv, x_BHWC)
