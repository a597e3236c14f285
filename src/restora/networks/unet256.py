"""The U-Net of five strided stages that Keras tutorials train on photos of 256 x 256.

It has 9,602,766 parameters, 9,600,206 of them trainable.

It is from public notebooks rather than a paper, after O. Ronneberger et al., MICCAI 2015, and P. Isola et
al., CVPR 2017. It has strided 3x3 convolutions to 128, 128, 256, 512 and 512 channels, batch norm in the last
three, LeakyReLU; transposed 3x3 convolutions back, each followed by the concatenated skip, the last by the
photo itself; a 2x2 convolution to the output. The 2,560 parameters that are not trainable are the running
means and variances of 1,280 channels, which Keras counts as parameters.

Notable: Keras' "same" padding is asymmetric for even strides or kernels, and its defaults differ from torch's
(slope 0.3, batch norm with eps 1e-3 and momentum 0.99). They are kept, so that weights converted from Keras
give the same output.

Legend: B samples, H height, W width, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import count_children
from restora.registry import register

_SLOPE = 0.3


class Down(nn.Module):
    """(B,C,H,W) -> (B,C',H/2,W/2): strided convolution, optional batch norm, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (0, 1, 0, 1)))
        return F.leaky_relu(self.norm(x), _SLOPE, inplace=True)


class Up(nn.Module):
    """(B,C,H,W) -> (B,C',2H,2W): transposed convolution and LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x)[..., :-1, :-1], _SLOPE)


@register("network", "unet256")
class UNet256(Network):
    """The whole network; `normed_stages` is the number of innermost stages with batch norm."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "inpaint", "colourise")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: Sequence[int] = (128, 128, 256, 512, 512),
        normed_stages: int = 3,
    ) -> None:
        super().__init__()
        stages = len(channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 2**stages
        ins = (in_channels, *channels[:-1])
        self.downs = nn.ModuleList(
            Down(before, after, batch_norm=level >= stages - normed_stages)
            for level, (before, after) in enumerate(zip(ins, channels, strict=True))
        )
        outs = (*channels[-2::-1], out_channels)
        skips = (0, *channels[-2::-1])  # skips concatenated before each transposed convolution
        comes_from = (channels[-1], *outs[:-1])
        self.ups = nn.ModuleList(
            Up(below + skip, out) for below, skip, out in zip(comes_from, skips, outs, strict=True)
        )
        self.output = nn.Conv2d(out_channels + in_channels, out_channels, 2)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if not {"downs.0.conv.weight", "ups.0.conv.weight", "output.weight"} <= state.keys():
            return None
        levels = range(count_children(state, "downs"))
        return {
            "in_channels": state["downs.0.conv.weight"].shape[1],
            "out_channels": state["output.weight"].shape[0],
            "channels": [state[f"downs.{level}.conv.weight"].shape[0] for level in levels],
            "normed_stages": sum(f"downs.{level}.norm.weight" in state for level in levels),
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        levels = [x]
        for down in self.downs:
            levels.append(down(levels[-1]))  # (B,C_i,H/2^i,W/2^i)
        y = levels.pop()
        for up in self.ups:
            y = torch.cat((up(y), levels.pop()), dim=1)
        restored: Tensor = self.output(F.pad(y, (0, 1, 0, 1)))
        return restored
