"""A model of noise that is independent from pixel to pixel, for use as CycleGAN's second network.

It adds to each pixel a function of its own value and of normal noise, made by 1x1 convolutions. It can learn
noise of any distribution, also signal-dependent noise, but neither structure nor changes of the photo's
detail. The design is our own; with `kernel` above 1 the noise is filtered first, like that of demosaiced
photos.

Legend: B samples, C channels of the photo, K channels of noise, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import PointwiseConv
from restora.registry import register


@register("network", "noise_model")
class NoiseModel(Network):
    """x + model(x, filtered noise); the noise is the condition, (B,K,H,W)."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(
        self, *, in_channels: int = 3, condition_channels: int = 3, channels: int = 32, kernel: int = 1
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"network.kernel must be an odd number of pixels, got {kernel}")
        self.in_channels = self.out_channels = in_channels
        self.condition_channels = condition_channels
        self.filter = nn.Conv2d(condition_channels, channels, kernel, padding=kernel // 2, bias=False)
        last = PointwiseConv(channels, in_channels)
        with torch.no_grad():
            last.weight.mul_(0.1)  # the first noise is weak
        self.model = nn.Sequential(
            PointwiseConv(in_channels + channels, channels),
            nn.ReLU(inplace=True),
            PointwiseConv(channels, channels),
            nn.ReLU(inplace=True),
            last,
        )

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        noise: Tensor = self.model(torch.cat((x, self.filter(condition.to(x.dtype))), dim=1))
        return x + noise

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if {*state} != {
            "filter.weight",
            *(f"model.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")),
        }:
            return None
        channels, noise, kernel = state["filter.weight"].shape[:3]
        return {
            "in_channels": len(state["model.4.bias"]),
            "condition_channels": noise,
            "channels": channels,
            "kernel": kernel,
        }
