"""HAT: shifted-window attention beside a convolutional channel-attention branch, and attention over windows that
overlap at the end of each group.

X. Chen, X. Wang, J. Zhou, Y. Qiao, C. Dong, "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023.
Parameter names are those of the authors' checkpoints
(`layers.0.residual_group.blocks.0.conv_block.cab.3.attention.1.weight`, ...).

Notable: the windows that overlap are cut out of the keys' and values' photo as views and copied once, already in the
order that attention reads, where the authors' code unfolds and rearranges. Published checkpoints also hold
the tables' indices, which are dropped on loading and written by `published_state_dict`.

Legend: B samples, C channels, H height, W width, s scale, w window side, o side of an overlapping window,
n windows in a photo, N = w*w, M = o*o, h heads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.blocks import (
    DIV2K_MEAN,
    PixelShuffleUpsampler,
    conv1x1,
    conv3x3,
    count_children,
    upsampler_scale,
)
from restora.networks.channels_last import LayerNorm, Linear, convolve, to_channels_first, to_channels_last
from restora.networks.swin_blocks import Mlp, PatchEmbed, WindowAttention, initialise_linear
from restora.networks.windows import (
    attend,
    drop_path,
    from_windows,
    growing_drops,
    overlapping_windows,
    relative_position_bias,
    relative_position_index,
    shift,
    shifted_window_mask,
    to_windows,
)

Connection = Literal["1conv", "identity"]


class Positions(NamedTuple):
    """What all blocks share in a forward pass: table rows of both kinds of attention, and the shifted windows' mask."""

    inside: Tensor
    """int64 (N,N)"""
    around: Tensor
    """int64 (N,M)"""
    mask: Tensor
    """(n,N,N)"""


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
    """CAB (section 3.2): two convolutions through fewer channels, then channel attention: (B,H,W,C) -> same."""

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
