"""RDN: dense blocks with local feature fusion, and a global fusion of all blocks.

Y. Zhang, Y. Tian, Y. Kong, B. Zhong, Y. Fu, "Residual Dense Network for Image Super-Resolution", CVPR 2018.
Parameter names are those of the EDSR authors' PyTorch code, the source of RDN's PyTorch checkpoints
(`SFENet1.weight`, `RDBs.0.convs.0.conv.0.weight`, `GFF.0.weight`, `UPNet.0.weight`, photos on [0,255]); the
other published set (`sfe1`, `rdbs`, on [0,1]) is renamed on loading and needs `rgb_range=1`.

Legend: B samples, C channels of the photo, F features, G growth, H height, W width, s scale.
"""

import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv1x1, conv3x3, count_children, upsampler_scale, upsampling_steps
from restora.registry import register


class _DenseLayer(nn.Module):
    """(B,c,H,W) -> (B,c+G,H,W): the input concatenated with a convolution of it."""

    def __init__(self, channels: int, *, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv3x3(channels, growth), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv(x)), dim=1)


class _ResidualDenseBlock(nn.Module):
    """Dense layers and their fusion by a 1x1 convolution, added to the input (section 3.2)."""

    def __init__(self, channels: int, *, growth: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(_DenseLayer(channels + i * growth, growth=growth) for i in range(layers))
        )
        self.LFF = conv1x1(channels + layers * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.LFF(self.convs(x))


@register("network", "rdn")
class RDN(Network):
    """The paper's size: 16 blocks of 8 layers, growth 64 (setting B of the code; A is 20, 6 and 32)."""

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "deblur", "jpeg")

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
        rgb_range: float = 255.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.rgb_range = rgb_range
        self.SFENet1 = conv3x3(in_channels, channels)
        self.SFENet2 = conv3x3(channels, channels)
        self.RDBs = nn.ModuleList(
            _ResidualDenseBlock(channels, growth=growth, layers=layers) for _ in range(blocks)
        )
        self.GFF = nn.Sequential(conv1x1(blocks * channels, channels), conv3x3(channels, channels))
        upsampling: list[nn.Module] = []
        width = channels
        for step in upsampling_steps(scale):
            upsampling += [conv3x3(width, step * step * growth), nn.PixelShuffle(step)]
            width = growth
        self.UPNet = nn.Sequential(*upsampling, conv3x3(width, in_channels))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        first = self.SFENet1(x * self.rgb_range)  # (B,F,H,W)
        y = self.SFENet2(first)
        outputs = []
        for block in self.RDBs:
            y = block(y)
            outputs.append(y)
        y = self.GFF(torch.cat(outputs, dim=1)) + first
        restored: Tensor = self.UPNet(y)  # (B,C,sH,sW)
        return restored.to(x.dtype) / self.rgb_range

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renames the other published parameters (`sfe1`, `rdbs.0.layers.0.conv`, ...)."""
        if "sfe1.weight" not in state:
            return dict(state)
        patterns = (
            (r"^sfe(\d)\.", r"SFENet\1."),
            (r"^rdbs\.(\d+)\.layers\.(\d+)\.conv\.", r"RDBs.\1.convs.\2.conv.0."),
            (r"^rdbs\.(\d+)\.lff\.", r"RDBs.\1.LFF."),
            (r"^gff\.", "GFF."),
            (r"^upscale\.", "UPNet."),
            (r"^output\.", f"UPNet.{len(self.UPNet) - 1}."),
        )
        adapted = {}
        for name, value in state.items():
            for theirs, ours in patterns:
                name = re.sub(theirs, ours, name)
            adapted[name] = value
        return adapted

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | float] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        other = "sfe1.weight" in state
        first, blocks = ("sfe1.weight", "rdbs") if other else ("SFENet1.weight", "RDBs")
        layers, layer = f"{blocks}.0.{'layers' if other else 'convs'}", "conv" if other else "conv.0"
        if first not in state or f"{layers}.0.{layer}.weight" not in state:
            return None
        channels, in_channels = state[first].shape[:2]
        growth = state[f"{layers}.0.{layer}.weight"].shape[0]
        found: dict[str, int | float] = {
            "scale": upsampler_scale(state, "upscale" if other else "UPNet", growth),
            "in_channels": in_channels,
            "channels": channels,
            "growth": growth,
            "blocks": count_children(state, blocks),
            "layers": count_children(state, layers),
        }
        return found | {"rgb_range": 1.0} if other else found
