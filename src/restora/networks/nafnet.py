"""NAFNet: a U-Net of blocks without activation functions.

L. Chen, X. Chu, X. Zhang, J. Sun, "Simple Baselines for Image Restoration", ECCV 2022. Parameter names are
those of the authors' checkpoints (`intro.weight`, `encoders.0.0.conv1.weight`, `middle_blks.0.beta`, ...).

Notable: the same results as the authors' code with less work. Features stay channels-last; the residual
scales beta and gamma are multiplied into the 1x1 convolution before them, which also keeps a half-precision
residual stream in half precision; a pixel shuffle and the addition of its skip are one pass. Figures:
benchmarks/NOTES.md.

Legend: B samples, H height, W width, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from restora import kernels
from restora.networks.base import Network
from restora.networks.layers.blocks import count_children
from restora.networks.layers.channels_last import (
    LayerNorm,
    convolve,
    linear,
    pointwise,
    to_channels_first,
    to_channels_last,
)
from restora.networks.layers.local_converter import GlobalMean
from restora.registry import register


class SimplifiedChannelAttention(nn.Sequential):
    """x * W mean(x), section 3.3: (B,H,W,C) -> same."""

    def __init__(self, *, channels: int) -> None:
        super().__init__(GlobalMean(), nn.Conv2d(channels, channels, 1))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        mean, conv = self
        assert isinstance(conv, nn.Conv2d)
        return x_BHWC * pointwise(conv, mean(x_BHWC))

    def factors(self, sums_BC: Tensor, x_BHWC: Tensor) -> Tensor | None:
        """W mean(x), (B,C), from the sums of x over its positions; None where the mean is over windows."""
        mean, conv = self
        assert isinstance(mean, GlobalMean)
        assert isinstance(conv, nn.Conv2d)
        if not mean.is_of_all(x_BHWC):
            return None
        positions = x_BHWC.shape[1] * x_BHWC.shape[2]
        return pointwise(conv, (sums_BC * (1.0 / positions)).to(x_BHWC.dtype))


def simple_gate(x: Tensor) -> Tensor:
    """The product of the two halves of the last axis: (...,2C) -> (...,C)."""
    first, second = x.chunk(2, dim=-1)
    return first * second


class NAFBlock(nn.Module):
    """(B,H,W,C) -> same: a gated depthwise convolution with channel attention, then a gated feed-forward."""

    def __init__(
        self, *, channels: int, attention: nn.Module, depthwise_expansion: int, ffn_expansion: int
    ) -> None:
        super().__init__()
        wide, hidden = depthwise_expansion * channels, ffn_expansion * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(wide // 2, channels, 1)
        self.sca = attention
        self.conv4 = nn.Conv2d(channels, hidden, 1)
        self.conv5 = nn.Conv2d(hidden // 2, channels, 1)
        self.norm1 = LayerNorm(channels, eps=1e-6)
        self.norm2 = LayerNorm(channels, eps=1e-6)
        # zero, so that a new block is the identity
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if kernels.usable(x_BHWC, max(self.conv3.in_channels, self.conv5.in_channels)):
            return self._fused(x_BHWC)
        y = convolve(self.conv2, pointwise(self.conv1, self.norm1(x_BHWC)))
        x_BHWC = x_BHWC + _scaled_pointwise(self.conv3, self.sca(simple_gate(y)), self.beta)
        y = simple_gate(pointwise(self.conv4, self.norm2(x_BHWC)))
        return x_BHWC + _scaled_pointwise(self.conv5, y, self.gamma)

    def _fused(self, x_BHWC: Tensor) -> Tensor:
        """The same forward pass with fused kernels."""
        from restora.kernels import functions

        def normed(norm: LayerNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
            gain, shift, weight, bias = functions.like(
                x, norm.weight, norm.bias, conv.weight.flatten(1), conv.bias
            )
            return functions.norm_linear(x, gain, shift, weight, bias, norm.eps)

        assert self.conv2.bias is not None
        weight, bias = functions.like(x_BHWC, self.conv2.weight, self.conv2.bias)
        y, sums = functions.depthwise_gate(normed(self.norm1, self.conv1, x_BHWC), weight, bias)
        factors = self.sca.factors(sums, y) if isinstance(self.sca, SimplifiedChannelAttention) else None
        if factors is None:
            x_BHWC = x_BHWC + _scaled_pointwise(self.conv3, self.sca(y), self.beta)
        else:
            third = functions.like(x_BHWC, *_scaled(self.conv3, self.beta))
            x_BHWC = functions.scaled_linear(x_BHWC, y, factors, *third)
        fifth = functions.like(x_BHWC, *_scaled(self.conv5, self.gamma))
        return functions.gated_linear(x_BHWC, normed(self.norm2, self.conv4, x_BHWC), *fifth)


def _scaled_pointwise(conv: nn.Conv2d, x_BHWC: Tensor, scale: Tensor) -> Tensor:
    """scale * conv(x) for a 1x1 convolution, by scaling its few weights instead of all positions."""
    return linear(x_BHWC, *_scaled(conv, scale))


def _scaled(conv: nn.Conv2d, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C',C) and bias (C') of scale * conv(x)."""
    scale = scale.flatten()
    assert conv.bias is not None
    return conv.weight.flatten(1) * scale.unsqueeze(1), conv.bias * scale


class Upsample(nn.Sequential):
    """(B,H,W,C) and a skip (B,2H,2W,C/2) -> their sum: a 1x1 convolution and a pixel shuffle."""

    def __init__(self, *, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:  # type: ignore[override]
        b, h, w, c = x_BHWC.shape
        (conv,) = self
        assert isinstance(conv, nn.Conv2d)
        # rows in the order (2,2,C/2), so that the shuffle is one permutation of the axes
        weight = conv.weight.view(c // 2, 2, 2, c).permute(1, 2, 0, 3).reshape(2 * c, c)
        y = linear(x_BHWC, weight, None).view(b, h, w, 2, 2, c // 2).transpose(2, 3)  # (B,H,2,W,2,C/2)
        return (skip_BHWC.view(b, h, 2, w, 2, c // 2) + y).view(b, 2 * h, 2 * w, c // 2)


@register("network", "nafnet")
class NAFNet(Network):
    """The whole network, which predicts a residual that is added to its input.

    Widths and block counts of the paper: SIDD denoising (2,2,4,8) / 12 / (2,2,2,2), GoPro deblurring
    (1,1,1,28) / 1 / (1,1,1,1), each of width 32 and 64. Photos are padded with zeros, as the authors do.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "derain", "inpaint", "colourise")
    whole_photo = True
    padding = "constant"

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 32,
        encoder_blocks: Sequence[int] = (2, 2, 4, 8),
        middle_blocks: int = 12,
        decoder_blocks: Sequence[int] = (2, 2, 2, 2),
        depthwise_expansion: int = 2,
        ffn_expansion: int = 2,
    ) -> None:
        super().__init__()
        _check(width, encoder_blocks, decoder_blocks, depthwise_expansion, ffn_expansion)
        self.in_channels = self.out_channels = in_channels
        self.size_multiple = 2 ** len(encoder_blocks)
        self.intro = nn.Conv2d(in_channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, in_channels, 3, padding=1)

        def stage(channels: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    NAFBlock(
                        channels=channels,
                        attention=self.make_attention(channels * depthwise_expansion // 2),
                        depthwise_expansion=depthwise_expansion,
                        ffn_expansion=ffn_expansion,
                    )
                    for _ in range(count)
                )
            )

        channels = [width * 2**level for level in range(len(encoder_blocks) + 1)]
        self.encoders = nn.ModuleList(stage(c, n) for c, n in zip(channels, encoder_blocks, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.middle_blks = stage(channels[-1], middle_blocks)
        self.ups = nn.ModuleList(Upsample(channels=c) for c in channels[:0:-1])
        self.decoders = nn.ModuleList(
            stage(c, n) for c, n in zip(channels[-2::-1], decoder_blocks, strict=True)
        )

    def make_attention(self, channels: int) -> nn.Module:
        """The attention of one block, (B,H,W,C) -> same."""
        return SimplifiedChannelAttention(channels=channels)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        y = to_channels_last(self.intro(x.contiguous(memory_format=torch.channels_last)))  # (B,H,W,C)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            y = encoder(y)
            skips.append(y)
            y = convolve(down, y)  # (B,H/2,W/2,2C)
        y = self.middle_blks(y)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            y = decoder(up(y, skip))
        residual: Tensor = self.ending(to_channels_first(y))
        return residual + x

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int]] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if not any(name.endswith(".sca.1.weight") for name in state):
            return None
        return nafnet_arguments(state)


def nafnet_arguments(state: Mapping[str, Tensor]) -> dict[str, int | list[int]] | None:
    """The constructor's arguments, inferred from a state dict of NAFNet's blocks; else None."""
    blocks = [name.removesuffix("conv1.weight") for name in state if name.endswith(".conv1.weight")]
    if "intro.weight" not in state or not blocks:
        return None
    width, in_channels = state["intro.weight"].shape[:2]
    block = blocks[0]  # all have the same expansions, and there may be none in the middle
    channels = state[block + "conv3.weight"].shape[0]
    levels = range(count_children(state, "downs"))  # a level may have no blocks
    return {
        "in_channels": in_channels,
        "width": width,
        "encoder_blocks": [count_children(state, f"encoders.{level}") for level in levels],
        "middle_blocks": count_children(state, "middle_blks"),
        "decoder_blocks": [count_children(state, f"decoders.{level}") for level in levels],
        "depthwise_expansion": state[block + "conv1.weight"].shape[0] // channels,
        "ffn_expansion": state[block + "conv4.weight"].shape[0] // channels,
    }


def _check(
    width: int,
    encoder_blocks: Sequence[int],
    decoder_blocks: Sequence[int],
    depthwise_expansion: int,
    ffn_expansion: int,
) -> None:
    if len(encoder_blocks) != len(decoder_blocks):
        raise ValueError(
            f"NAFNet's decoder mirrors its encoder: network.encoder_blocks has {len(encoder_blocks)} levels, "
            f"network.decoder_blocks {len(decoder_blocks)}"
        )
    if width * depthwise_expansion % 2 or width * ffn_expansion % 2:
        raise ValueError(
            f"NAFNet's gates halve width * expansion, which must be even: width {width}, expansions "
            f"{depthwise_expansion} and {ffn_expansion}"
        )
