"""The parts of Swin transformers for restoration (SwinIR, HAT), under their published names.

Z. Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021; J.
Liang et al., "SwinIR", ICCV Workshops 2021.

Legend: B samples, C channels, H height, W width, w window side, n windows in a photo, N = w*w, h heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.blocks import conv3x3
from restora.networks.channels_last import LayerNorm, Linear, convolve
from restora.networks.windows import (
    attend,
    drop_path,
    from_windows,
    relative_position_bias,
    shift,
    to_windows,
)

Connection = Literal["1conv", "3conv"]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with relative position bias: (B*n,N,C) -> same.

    `projection` makes queries, keys and values, (...,C) -> (...,3C); a linear layer by default.
    """

    def __init__(
        self, *, channels: int, heads: int, window: int, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = projection or Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(windows).chunk(3, dim=-1)
        bias = relative_position_bias(self.relative_position_bias_table, index)  # (h,N,N)
        return self.proj(attend(q, k, v, heads=self.heads, bias=bias, mask=mask))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, at every position."""

    def __init__(self, *, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.fc2 = Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and MLP, each normalised before and added to its input: (B,H,W,C) -> same."""

    def __init__(
        self, *, channels: int, heads: int, window: int, shift_by: int, mlp_ratio: float, drop: float
    ) -> None:
        super().__init__()
        self.window, self.shift_by, self.drop = window, shift_by, drop
        self.norm1 = LayerNorm(channels)
        self.attn = WindowAttention(channels=channels, heads=heads, window=window)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels=channels, hidden=int(channels * mlp_ratio))

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        windows = to_windows(shift(self.norm1(x_BHWC), self.shift_by), self.window)  # (B*n,N,C)
        windows = self.attn(windows, index, mask if self.shift_by else None)
        attended = shift(from_windows(windows, self.window, height, width), -self.shift_by)
        x_BHWC = x_BHWC + drop_path(attended, self.drop, self.training)
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.drop, self.training)


class _Blocks(nn.Module):
    """The blocks of a group, a level down because the checkpoints keep them there."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class ResidualGroup(nn.Module):
    """Residual Swin transformer block (RSTB, section 3.2): blocks, a convolution, and the input added."""

    def __init__(self, blocks: Sequence[nn.Module], *, channels: int, connection: Connection) -> None:
        super().__init__()
        self.residual_group = _Blocks(blocks)
        self.conv = residual_convolution(channels, connection)

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        y = x_BHWC
        for block in self.residual_group.blocks:
            y = block(y, index, mask)
        return x_BHWC + convolve(self.conv, y)


class PatchEmbed(nn.Module):
    """Holds the norm of the embedded pixels under its published name."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)


def residual_convolution(channels: int, connection: Connection) -> nn.Module:
    """The convolution that closes a group: one, or three through a quarter of the channels (SwinIR-L)."""
    if connection == "1conv":
        return conv3x3(channels, channels)
    quarter = channels // 4
    return nn.Sequential(
        conv3x3(channels, quarter),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(quarter, quarter, 1),
        nn.LeakyReLU(0.2, inplace=True),
        conv3x3(quarter, channels),
    )


def initialise_linear(module: nn.Module) -> None:
    """Swin's initialisation: linear layers from a normal of deviation 0.02 cut at 2, without bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
