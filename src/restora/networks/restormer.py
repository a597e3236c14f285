"""Restormer: a four-level transformer U-Net with attention across channels instead of positions.

S. W. Zamir, A. Arora, S. Khan, M. Hayat, F. S. Khan, M.-H. Yang, "Restormer: Efficient Transformer for
High-Resolution Image Restoration", CVPR 2022. Parameter names are those of the authors' checkpoints
(`patch_embed.proj`, `encoder_level1.0.norm1.body.weight`, ...).

Notable: features stay channels-last, so that layer norm and 1x1 convolutions read contiguous rows.

Legend: B samples, H height, W width, C channels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import count_children
from restora.networks.layers.channels_last import pointwise, to_channels_first, to_channels_last
from restora.networks.layers.restormer_blocks import (
    Downsample,
    NormType,
    PatchEmbed,
    TransformerBlock,
    Upsample,
)
from restora.registry import register


@register("network", "restormer")
class Restormer(Network):
    """The whole network: residual output, except in the dual-pixel task (two input photos, one output photo).

    `blocks` and `heads` are ordered from the full resolution to the lowest; the decoder mirrors them. The
    authors use the norm "WithBias" for deblurring and deraining, "BiasFree" for all denoising.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "derain", "jpeg")
    size_multiple = 8
    whole_photo = True

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
        self.patch_embed = PatchEmbed(in_channels=in_channels, channels=c)
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
        # the highest decoder level keeps all 2C concatenated channels, without reduction
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
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
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
    """The factor with the fewest decimals for which int(factor * width) gives `hidden` for all `widths`."""
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
    if channels % 2:
        raise ValueError(f"Restormer halves its channels: network.channels must be even, got {channels}")
    for level, count in enumerate(heads):
        if count < 1 or channels * 2**level % count:
            raise ValueError(
                f"level {level + 1} of Restormer has {channels * 2**level} channels, {count} heads do not "
                f"divide: change network.channels or network.heads"
            )
    if norm not in get_args(NormType):
        raise ValueError(f'network.norm must be "BiasFree" or "WithBias", got "{norm}"')
    if not dual_pixel and in_channels != out_channels:
        raise ValueError(
            f"Restormer adds its input to its output, so both have the same channels, got {in_channels} and "
            f"{out_channels} (network.dual_pixel=true is the variant with two input photos)"
        )
