"""The parts of Swin transformers for restoration (SwinIR, HAT), with their published names.

Z. Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021; J.
Liang et al., "SwinIR", ICCV Workshops 2021.

Legend: B samples, C channels, H height, W width, s scale, w window side, n windows in a photo, N = w*w, h
heads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import DIV2K_MEAN, conv3x3
from restora.networks.layers.channels_last import (
    LayerNorm,
    Linear,
    convolve,
    to_channels_first,
    to_channels_last,
)
from restora.networks.layers.windows import (
    attend,
    drop_path,
    from_windows,
    relative_position_bias,
    relative_position_index,
    shift,
    shifted_window_mask,
    to_windows,
)

Connection = Literal["1conv", "3conv"]


class _PatchEmbed(nn.Module):
    """Holds the norm of the embedded pixels, for its published name."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)


class SwinNetwork(Network):
    """The base of SwinIR and HAT: a convolution, groups of blocks, a convolution after them, and a head.

    A subclass makes the groups, norm and last convolution (`layers`, `norm`, `conv_after_body`) and its head
    after this constructor, so that the order of the parameters is the published one. `value_range` is the
    internal range of the photo.
    """

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg")
    mean: Tensor
    relative_positions: Tensor
    layers: nn.ModuleList
    norm: nn.Module
    conv_after_body: nn.Module

    def __init__(
        self, *, in_channels: int, channels: int, window: int, scale: int, value_range: float
    ) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.scale, self.size_multiple = scale, window
        self.window, self.value_range = window, value_range
        mean = DIV2K_MEAN if in_channels == 3 else (0.0,) * in_channels
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("relative_positions", relative_position_index(window), persistent=False)
        self.conv_first = conv3x3(in_channels, channels)
        self.patch_embed = _PatchEmbed(channels=channels)

    @abstractmethod
    def head(self, y: Tensor, x: Tensor) -> Tensor:
        """Features (B,C,H,W) and photo (B,C',H,W) -> (B,C',sH,sW), both photos in the internal range."""

    def tables(self, mask: Tensor) -> tuple[Tensor, ...]:
        """Further arguments of each group; `mask` is that of the shifted windows, (n,N,N)."""
        return self.relative_positions, mask

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        x = (x - self.mean) * self.value_range
        shallow = self.conv_first(x)
        deep = self._features(to_channels_last(shallow))
        y = self.conv_after_body(to_channels_first(deep)) + shallow  # (B,C,H,W)
        return self.head(y, x) / self.value_range + self.mean

    def _features(self, x_BHWC: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        mask = shifted_window_mask(height, width, size=self.window, by=self.window // 2, like=x_BHWC)
        tables = self.tables(mask)
        x_BHWC = self.patch_embed.norm(x_BHWC)
        for layer in self.layers:
            x_BHWC = layer(x_BHWC, *tables)
        return self.norm(x_BHWC)


class WindowAttention(nn.Module):
    """Attention inside windows with relative position bias: (B,H,W,C) -> same.

    It is multi-head, on the photo rolled by `shift_by`.

    `projection` makes queries, keys and values, (...,C) -> (...,3C); by default a linear layer.
    """

    def __init__(
        self, *, channels: int, heads: int, window: int, shift_by: int, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.heads, self.window, self.shift_by = heads, window, shift_by
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = projection or Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(
        self, x_BHWC: Tensor, index: Tensor, mask: Tensor | None, *, added: Tensor | None = None
    ) -> Tensor:
        """`index` (N,N); `mask` (n,N,N), which only shifted windows need.

        `added` (N,C) is added to each window before attention.
        """
        height, width = x_BHWC.shape[1:3]
        windows = to_windows(shift(x_BHWC, self.shift_by), self.window)  # (B*n,N,C)
        if added is not None:
            windows = windows + added.to(windows.dtype)
        q, k, v = self.qkv(windows).chunk(3, dim=-1)
        bias = relative_position_bias(self.relative_position_bias_table, index)  # (h,N,N)
        mask = mask if self.shift_by else None
        windows = self.proj(attend(q, k, v, heads=self.heads, bias=bias, mask=mask))
        return shift(from_windows(windows, self.window, height, width), -self.shift_by)


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
        self.drop = drop
        self.norm1 = LayerNorm(channels)
        self.attn = WindowAttention(channels=channels, heads=heads, window=window, shift_by=shift_by)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels=channels, hidden=int(channels * mlp_ratio))

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        attended = self.attn(self.norm1(x_BHWC), index, mask)
        x_BHWC = x_BHWC + drop_path(attended, self.drop, self.training)
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.drop, self.training)


class Blocks(nn.Module):
    """The blocks of a group, nested as in the checkpoints."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class ResidualGroup(nn.Module):
    """Residual Swin transformer block (RSTB, section 3.2): x + convolution(blocks(x))."""

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        drops: Sequence[float],
        connection: Connection,
    ) -> None:
        super().__init__()
        blocks = [
            SwinBlock(
                channels=channels,
                heads=heads,
                window=window,
                shift_by=position % 2 * (window // 2),
                mlp_ratio=mlp_ratio,
                drop=drop,
            )
            for position, drop in enumerate(drops)
        ]
        self.residual_group = Blocks(blocks)
        self.conv = residual_convolution(channels, connection)

    def forward(self, x_BHWC: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        y = x_BHWC
        for block in self.residual_group.blocks:
            y = block(y, index, mask)
        return x_BHWC + convolve(self.conv, y)


def residual_convolution(channels: int, connection: Connection) -> nn.Module:
    """The last convolution of a group: one, or three with a quarter of the channels between (SwinIR-L)."""
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


def check_groups(channels: int, depths: Sequence[int], heads: Sequence[int]) -> None:
    if len(depths) != len(heads):
        raise ValueError(
            f"network.depths has {len(depths)} groups, network.heads {len(heads)}: give one each"
        )
    if bad := [count for count in heads if count < 1 or channels % count]:
        raise ValueError(f"network.heads has {bad[0]}, which does not divide network.channels={channels}")


def initialise_linear(module: nn.Module) -> None:
    """Swin's initialisation: linear layers from N(0, 0.02) truncated at 2, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
