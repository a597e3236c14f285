"""A restoration network built of CvT's parts: convolutional token embedding and convolutional projections.

H. Wu, B. Xiao, N. Codella, M. Liu, X. Dai, L. Yuan, L. Zhang, "CvT: Introducing Convolutions to Vision
Transformers", ICCV 2021. The paper is on classification; no paper defines CvT for restoration, and there are
no published weights. This design is our own.

From the paper: tokens are made by overlapping strided convolutions followed by layer norm, at 1/4, 1/8 and
1/16 of the size, with CvT-13's widths, depths and heads (section 3.1, table 2); queries, keys and values
are made by a depthwise 3x3 convolution and a linear layer, keys and values at half the resolution (section
3.2); there is no position encoding, so any size works (section 3.4).

Added: the first embedding is two convolutions of stride 2 instead of one of stride 4, so that features at
full and half size exist; a decoder mirrors the encoder, with pixel shuffle, a skip from each resolution and
blocks of the same kind; the output is added to the input. Left out: the class token, and batch norm inside
the projections, which would make a photo's result depend on its batch.

Attention is over the whole photo: H*W pixels make H*W/16 queries and H*W/64 keys in the first stage, 4,096 by
1,024 at 256x256. Large photos need tiling.

Legend: B samples, C channels, H height, W width, h heads, N query positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv3x3, count_children
from restora.networks.layers.channels_last import (
    LayerNorm,
    Linear,
    convolve,
    to_channels_first,
    to_channels_last,
)
from restora.networks.layers.swin_blocks import Mlp, initialise_linear
from restora.networks.layers.windows import drop_path, growing_drops
from restora.registry import register


class ConvolutionalProjection(nn.Module):
    """(B,H,W,C) -> (B,h,H*W/stride^2,C/h): depthwise 3x3, then a linear layer, split into heads."""

    def __init__(self, *, channels: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels)
        self.linear = Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        tokens = self.linear(convolve(self.depthwise, x_BHWC)).flatten(1, 2)  # (B,N,C)
        return tokens.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class ConvolutionalAttention(nn.Module):
    """Attention over all positions with keys and values at half the resolution: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int, heads: int) -> None:
        super().__init__()
        self.to_q = ConvolutionalProjection(channels=channels, heads=heads, stride=1)
        self.to_k = ConvolutionalProjection(channels=channels, heads=heads, stride=2)
        self.to_v = ConvolutionalProjection(channels=channels, heads=heads, stride=2)
        self.proj = Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(self.to_q(x_BHWC), self.to_k(x_BHWC), self.to_v(x_BHWC))
        return self.proj(y.transpose(1, 2).reshape(x_BHWC.shape))  # (B,h,N,C/h) -> (B,H,W,C)


class TransformerBlock(nn.Module):
    """Attention then MLP, each normalised before and added to its input: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int, heads: int, mlp_ratio: float, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = LayerNorm(channels)
        self.attn = ConvolutionalAttention(channels=channels, heads=heads)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels=channels, hidden=int(channels * mlp_ratio))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + drop_path(self.attn(self.norm1(x_BHWC)), self.drop, self.training)
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.drop, self.training)


class TokenEmbedding(nn.Module):
    """(B,H,W,C) -> (B,H/2,W/2,C'): an overlapping convolution of stride 2 and layer norm."""

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = LayerNorm(channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(convolve(self.conv, x_BHWC))


class Upsample(nn.Module):
    """(B,H,W,C) and a skip (B,2H,2W,S) -> (B,2H,2W,S).

    Linear layer, pixel shuffle, and a linear layer over both.
    """

    def __init__(self, *, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.expand = Linear(channels, 4 * skip_channels)
        self.fuse = Linear(2 * skip_channels, skip_channels)

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        finer = F.pixel_shuffle(to_channels_first(self.expand(x_BHWC)), 2)
        return self.fuse(torch.cat((to_channels_last(finer), skip_BHWC), dim=-1))


class ConvolutionalBlock(nn.Module):
    """x + conv(gelu(conv(x))) on (B,H,W,C).

    Used at the two resolutions that have too many positions for attention.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(channels, channels), nn.GELU(), conv3x3(channels, channels))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC + convolve(self.body, x_BHWC)


@register("network", "cvt")
class CvTRestorer(Network):
    """The whole network.

    `stem_channels` are the widths at full and half size, `channels`, `depths` and `heads` those of the three
    stages of tokens, `decoder_depths` the blocks of the decoder at 1/8 and 1/4. The condition (a mask, a
    noise level) is concatenated with the photo. `drop_path` is the stochastic depth of the encoder's last
    block in training, growing linearly from 0 at the first.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "inpaint", "colourise", "derain")
    whole_photo = True
    size_multiple = 16

    def __init__(
        self,
        *,
        in_channels: int = 3,
        condition_channels: int = 0,
        stem_channels: Sequence[int] = (32, 64),
        channels: Sequence[int] = (64, 192, 384),
        depths: Sequence[int] = (1, 2, 10),
        decoder_depths: Sequence[int] = (2, 1),
        heads: Sequence[int] = (1, 3, 6),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        _check(stem_channels, channels, depths, decoder_depths, heads)
        self.in_channels = self.out_channels = in_channels
        self.condition_channels = condition_channels
        full, half = stem_channels

        def stage(level: int, drops: Sequence[float]) -> nn.Sequential:
            blocks = (
                TransformerBlock(channels=channels[level], heads=heads[level], mlp_ratio=mlp_ratio, drop=drop)
                for drop in drops
            )
            return nn.Sequential(*blocks)

        self.first = conv3x3(in_channels + condition_channels, full)
        self.encoder_full = ConvolutionalBlock(full)
        self.embed_half = TokenEmbedding(in_channels=full, channels=half)
        self.encoder_half = ConvolutionalBlock(half)
        self.embeds, self.stages = nn.ModuleList(), nn.ModuleList()
        for level, drops in enumerate(growing_drops(drop_path, depths)):
            wider = half if level == 0 else channels[level - 1]
            self.embeds.append(TokenEmbedding(in_channels=wider, channels=channels[level]))
            self.stages.append(stage(level, drops))
        self.ups = nn.ModuleList(
            Upsample(channels=channels[level], skip_channels=channels[level - 1]) for level in (2, 1)
        )
        self.decoder_stages = nn.ModuleList(
            stage(level, [0.0] * depth) for level, depth in zip((1, 0), decoder_depths, strict=True)
        )
        self.up_half = Upsample(channels=channels[0], skip_channels=half)
        self.decoder_half = ConvolutionalBlock(half)
        self.up_full = Upsample(channels=half, skip_channels=full)
        self.decoder_full = ConvolutionalBlock(full)
        self.last = conv3x3(full, in_channels)
        self.apply(initialise_linear)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        The number of heads cannot be inferred: it is set to 64 channels per head, as published, where that
        divides.
        """
        if not {"first.weight", "embed_half.conv.weight", "stages.0.0.norm1.weight"} <= state.keys():
            return None
        first, last = state["first.weight"], state["last.weight"]
        channels = [state[f"embeds.{level}.conv.weight"].shape[0] for level in range(3)]
        return {
            "in_channels": last.shape[0],
            "condition_channels": first.shape[1] - last.shape[0],
            "stem_channels": [first.shape[0], state["embed_half.conv.weight"].shape[0]],
            "channels": channels,
            "depths": [count_children(state, f"stages.{level}") for level in range(3)],
            "decoder_depths": [count_children(state, f"decoder_stages.{level}") for level in range(2)],
            "heads": [width // 64 if width % 64 == 0 else 1 for width in channels],
            "mlp_ratio": state["stages.0.0.mlp.fc1.weight"].shape[0] / channels[0],
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        stacked = x if condition is None else torch.cat((x, condition), dim=1)
        full = self.encoder_full(to_channels_last(self.first(stacked)))  # (B,H,W,F)
        half = self.encoder_half(self.embed_half(full))  # (B,H/2,W/2,F')
        y, tokens = half, []
        for embed, stage in zip(self.embeds, self.stages, strict=True):
            y = stage(embed(y))  # (B,H/4,W/4,C), (B,H/8,W/8,C'), (B,H/16,W/16,C'')
            tokens.append(y)
        for up, stage, skip in zip(self.ups, self.decoder_stages, (tokens[1], tokens[0]), strict=True):
            y = stage(up(y, skip))
        y = self.decoder_half(self.up_half(y, half))
        y = self.decoder_full(self.up_full(y, full))
        return x + self.last(to_channels_first(y))


def _check(
    stem_channels: Sequence[int],
    channels: Sequence[int],
    depths: Sequence[int],
    decoder_depths: Sequence[int],
    heads: Sequence[int],
) -> None:
    given = {
        "stem_channels": (stem_channels, 2),
        "channels": (channels, 3),
        "depths": (depths, 3),
        "decoder_depths": (decoder_depths, 2),
        "heads": (heads, 3),
    }
    for name, (values, count) in given.items():
        if len(values) != count:
            raise ValueError(f"network.{name} needs {count} numbers, got {list(values)}")
    for width, count in zip(channels, heads, strict=True):
        if count < 1 or width % count:
            raise ValueError(f"network.heads has {count}, which does not divide {width} of network.channels")
