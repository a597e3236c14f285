"""The network of Zero-Shot Noise2Noise: three convolutions, small enough to be fitted to one photo.

Y. Mansour, R. Heckel, "Zero-Shot Noise2Noise: Efficient Image Denoising without any Data", CVPR 2023.
Parameter names are those of the authors' notebook (`conv1.weight`, ...).

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from restora.networks.base import Network
from restora.networks.layers.blocks import conv1x1, conv3x3
from restora.registry import register


@register("network", "zs_n2n")
class ZsN2N(Network):
    """restored = x - conv(x): 3x3, 3x3 and 1x1 with leaky ReLUs between; 22,275 parameters in colour."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(self, *, in_channels: int = 3, channels: int = 48) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.conv1 = conv3x3(in_channels, channels)
        self.conv2 = conv3x3(channels, channels)
        self.conv3 = conv1x1(channels, in_channels)

    def noise(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> its estimated noise, (B,C,H,W)."""
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.conv2(x), 0.2)
        return self.conv3(x)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        return x - self.noise(x)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if set(state) != {f"conv{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")}:
            return None
        channels, photo = state["conv1.weight"].shape[:2]
        return {"in_channels": photo, "channels": channels}
