"""RED-Net: a convolutional autoencoder with optional symmetric skips.

X.-J. Mao, C. Shen, Y.-B. Yang, "Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with
Symmetric Skip Connections", NIPS 2016: RED10, RED20 and RED30 have 5, 10 and 15 layers in each half. The
authors' weights are Caffe files; the names are those of the PyTorch weights in circulation
(`conv_layers.0.0.weight`, `deconv_layers.0.0.weight`).

Legend: B samples, C channels of the photo, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import count_children, he_initialise
from restora.registry import register


@register("network", "rednet")
class REDNet(Network):
    """L convolutions, L transposed convolutions.

    Every second encoder output is added to the mirrored decoder layer, the photo to the output.

    `stride` 2 halves the photo in the first layer and doubles it in the last (the paper's section 3.4:
    faster, slightly worse). Without `skips` it is a plain autoencoder. There is no ReLU after the last sum,
    as restored photos are clamped later.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "super_resolution", "jpeg", "deblur", "inpaint")

    def __init__(
        self,
        *,
        in_channels: int = 1,
        layers: int = 15,
        channels: int = 128,
        stride: int = 1,
        skips: bool = True,
    ) -> None:
        super().__init__()
        if layers < 2 or stride < 1:
            raise ValueError(
                f"expected network.layers >= 2 and network.stride >= 1, got {layers} and {stride}"
            )
        self.in_channels = self.out_channels = in_channels
        self.size_multiple = stride
        self.layers, self.skips = layers, skips

        def unit(layer: nn.Module) -> nn.Sequential:
            return nn.Sequential(layer, nn.ReLU(inplace=True))

        self.conv_layers = nn.Sequential(
            unit(nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)),
            *(unit(nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(layers - 1)),
        )
        self.deconv_layers = nn.Sequential(
            *(unit(nn.ConvTranspose2d(channels, channels, 3, padding=1)) for _ in range(layers - 1)),
            nn.ConvTranspose2d(channels, in_channels, 3, stride=stride, padding=1, output_padding=stride - 1),
        )
        he_initialise(self)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        kept: dict[int, Tensor] = {}
        y = x
        for depth, layer in enumerate(self.conv_layers, 1):
            y = layer(y)  # (B,F,H/stride,W/stride)
            if depth % 2 == 0 and depth < self.layers:
                kept[depth] = y
        for depth, layer in zip(range(self.layers - 1, -1, -1), self.deconv_layers, strict=True):
            y = layer(y)
            if self.skips and depth in kept:
                y = F.relu(y + kept[depth])
        return x + y if self.skips else y

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "conv_layers.0.0.weight" not in state or "deconv_layers.0.0.weight" not in state:
            return None
        channels, in_channels = state["conv_layers.0.0.weight"].shape[:2]
        return {
            "in_channels": in_channels,
            "layers": count_children(state, "conv_layers"),
            "channels": channels,
        }
