"""IMDN: convolutions that split off (distil) a quarter of their channels at each step.

Contrast-aware channel attention weights the distilled features.

Z. Hui, X. Gao, Y. Yang, X. Wang, "Lightweight Image Super-Resolution with Information Multi-Distillation
Network", ACM MM 2019. Parameter names are those of the authors' checkpoints (`fea_conv.weight`,
`IMDB1.c1.weight`, `IMDB1.cca.conv_du.0.weight`, `upsampler.0.weight`).

Legend: B samples, C channels of the photo, F features, D distilled features, H height, W width, s scale.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import ChannelAttention, conv1x1, conv3x3
from restora.registry import register

_SLOPE = 0.05


class _MultiDistillation(nn.Module):
    """(B,F,H,W) -> same: four convolutions; a quarter of the output of the first three goes straight to the
    end (figure 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.distilled = channels // 4
        self.remaining = channels - self.distilled
        self.c1 = conv3x3(channels, channels)
        self.c2 = conv3x3(self.remaining, channels)
        self.c3 = conv3x3(self.remaining, channels)
        self.c4 = conv3x3(self.remaining, self.distilled)
        self.c5 = conv1x1(4 * self.distilled, channels)
        self.cca = ChannelAttention(4 * self.distilled, contrast=True)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for convolution in (self.c1, self.c2, self.c3):
            y = F.leaky_relu(convolution(rest), _SLOPE, inplace=True)
            distilled, rest = torch.split(y, [self.distilled, self.remaining], dim=1)
            kept.append(distilled)
        kept.append(self.c4(rest))
        return x + self.c5(self.cca(torch.cat(kept, dim=1)))


@register("network", "imdn")
class IMDN(Network):
    """restored = shuffle(conv(LR_conv(fusion of all blocks) + fea_conv(x))).

    The paper's network has 6 blocks and 64 channels.
    """

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg")
    whole_photo = True

    def __init__(self, *, scale: int = 4, in_channels: int = 3, channels: int = 64, blocks: int = 6) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(
                f"network.channels of IMDN must be a multiple of 4, a quarter is distilled; got {channels}"
            )
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.blocks = blocks
        self.fea_conv = conv3x3(in_channels, channels)
        for i in range(1, blocks + 1):
            self.add_module(f"IMDB{i}", _MultiDistillation(channels))
        self.c = nn.Sequential(conv1x1(blocks * channels, channels), nn.LeakyReLU(_SLOPE, inplace=True))
        self.LR_conv = conv3x3(channels, channels)
        self.upsampler = nn.Sequential(conv3x3(channels, in_channels * scale**2), nn.PixelShuffle(scale))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        shallow = self.fea_conv(x)  # (B,F,H,W)
        y, outputs = shallow, []
        for i in range(1, self.blocks + 1):
            y = self.get_submodule(f"IMDB{i}")(y)
            outputs.append(y)
        deep = self.LR_conv(self.c(torch.cat(outputs, dim=1))) + shallow
        return self.upsampler(deep)  # (B,C,sH,sW)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "fea_conv.weight" not in state or "IMDB1.cca.conv_du.0.weight" not in state:
            return None
        channels, in_channels = state["fea_conv.weight"].shape[:2]
        return {
            "scale": math.isqrt(state["upsampler.0.weight"].shape[0] // in_channels),
            "in_channels": in_channels,
            "channels": channels,
            "blocks": len({name.split(".")[0] for name in state if name.startswith("IMDB")}),
        }
