"""VDSR: twenty plain convolutions that predict the residual of bicubic upsampling.

The same weights serve all scales.

J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR
2016. Parameter names are those of the published PyTorch weights (`input.weight`,
`residual_layer.0.conv.weight`, `output.weight`; no biases). Scale 1 takes a photo that is already upsampled,
or needs no upsampling.

Legend: B samples, C channels (1: luminance), F features, H height, W width, s scale.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.blocks import conv3x3, count_children, he_initialise
from restora.networks.layers.luminance import LuminanceNetwork
from restora.registry import register


class _ConvReLU(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


@register("network", "vdsr")
class VDSR(LuminanceNetwork):
    """restored = enlarged + output(residual_layer(input(enlarged))).

    `depth` counts all convolutions. `round_8bit` rounds the upsampled photo to 8 bits as the authors do; only
    then are the published figures (37.59 dB at x2 on Set5) reproduced.
    """

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg")
    on_enlarged: ClassVar[bool] = True

    def __init__(
        self,
        *,
        scale: int = 2,
        in_channels: int = 3,
        depth: int = 20,
        channels: int = 64,
        luminance: bool = True,
        round_8bit: bool = True,
    ) -> None:
        super().__init__(scale=scale, in_channels=in_channels, luminance=luminance, round_8bit=round_8bit)
        if depth < 2:
            raise ValueError(f"network.depth must be 2 or more (it counts all convolutions), got {depth}")
        self.input = conv3x3(self.channels, channels, bias=False)
        self.residual_layer = nn.Sequential(*(_ConvReLU(channels) for _ in range(depth - 2)))
        self.output = conv3x3(channels, self.channels, bias=False)
        he_initialise(self)

    def predict(self, x: Tensor) -> Tensor:
        y = F.relu(self.input(x), inplace=True)  # (B,F,sH,sW)
        residual: Tensor = self.output(self.residual_layer(y))
        return x + residual

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "input.weight" not in state or "residual_layer.0.conv.weight" not in state:
            return None
        return {
            "depth": count_children(state, "residual_layer") + 2,
            "channels": state["input.weight"].shape[0],
            **cls.colours(state["input.weight"]),
        }
