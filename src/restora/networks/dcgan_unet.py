"""A U-Net that follows the design rules of DCGAN.

A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016: strided 4x4 convolutions instead of pooling and transposed ones instead of
interpolation, batch norm everywhere but at input and output, no fully connected layers, tanh at the end,
weights from N(0, 0.02). The skips of U-Net (O. Ronneberger et al., MICCAI 2015) make it restore a photo
instead of generating one. As in DCGAN's generator, four levels lie between 64 x 64 pixels and 4 x 4
positions. The network works on the range [-1, 1] internally, so its output lies within (0, 1).

Legend: B samples, H height, W width, C channels of a level.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import count_children, initialise_as_dcgan
from restora.registry import register


@register("network", "dcgan_unet")
class DCGANUNet(Network):
    """The whole network; `channels` are those of its levels, from half the photo's size down."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "inpaint", "colourise")

    def __init__(
        self, *, in_channels: int = 3, out_channels: int = 3, channels: Sequence[int] = (64, 128, 256, 512)
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"DCGANUNet needs two levels or more, got network.channels={[*channels]}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 2 ** len(channels)
        self.downs = nn.ModuleList()
        for level, (before, after) in enumerate(zip((in_channels, *channels[:-1]), channels, strict=True)):
            layers: list[nn.Module] = [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=level == 0)]
            if level:
                layers.append(nn.BatchNorm2d(after))
            self.downs.append(nn.Sequential(*layers, nn.LeakyReLU(0.2)))
        self.ups = nn.ModuleList()
        below = channels[-1]
        for width in channels[-2::-1]:
            self.ups.append(
                nn.Sequential(
                    nn.ConvTranspose2d(below, width, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
            )
            below = 2 * width  # with its skip
        self.output = nn.ConvTranspose2d(below, out_channels, 4, stride=2, padding=1)
        initialise_as_dcgan(self)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if not {"downs.0.0.weight", "ups.0.0.weight", "output.weight"} <= state.keys():
            return None
        levels = range(count_children(state, "downs"))
        return {
            "in_channels": state["downs.0.0.weight"].shape[1],
            "out_channels": state["output.weight"].shape[1],  # of a transposed convolution
            "channels": [state[f"downs.{level}.0.weight"].shape[0] for level in levels],
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        levels = []
        y = 2 * x - 1
        for down in self.downs:
            y = down(y)  # (B,C_i,H/2^(i+1),W/2^(i+1))
            levels.append(y)
        levels.pop()
        for up in self.ups:
            y = torch.cat((up(y), levels.pop()), dim=1)
        return 0.5 * (torch.tanh(self.output(y)) + 1)
