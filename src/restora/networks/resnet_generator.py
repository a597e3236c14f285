"""CycleGAN's generator: two strided convolutions down, residual blocks, two transposed ones up, tanh.

J.-Y. Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
2017, section 7.1, after J. Johnson, A. Alahi, L. Fei-Fei, ECCV 2016: 9 blocks for photos of 256 (11,378,179
parameters), 6 for 128. Names are those of the authors' code (`model.10.conv_block.1`). The authors' photos
are on [-1, 1]; the network converts its input.

Legend: B samples, C channels, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from restora.networks.base import Network, pad_bottom_right
from restora.networks.layers.blocks import InstanceNorm2d, count_children
from restora.registry import register

_BEFORE = 10
"""Modules before the first block."""
_LEAST = 8
"""Smallest side of a photo; the blocks need two pixels for reflection padding and instance norm."""


class _Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))) with reflection padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm2d(channels)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm2d(channels)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(inplace=True), *other)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


@register("network", "resnet_generator")
class ResNetGenerator(Network):
    """`channels` F in the first and the last layer, 4 F in the `blocks`; weights start from N(0, 0.02^2)."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "colourise", "derain")
    whole_photo = True
    size_multiple = 4

    def __init__(
        self, *, in_channels: int = 3, out_channels: int = 3, channels: int = 64, blocks: int = 9
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, channels, 7)]
        layers += [InstanceNorm2d(channels), nn.ReLU(inplace=True)]
        for width in (channels, 2 * channels):
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]  # (B,2F,H/2,W/2), (B,4F,H/4,W/4)
            layers += [InstanceNorm2d(2 * width), nn.ReLU(inplace=True)]
        layers += [_Residual(4 * channels) for _ in range(blocks)]
        for width in (4 * channels, 2 * channels):
            up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, InstanceNorm2d(width // 2), nn.ReLU(inplace=True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(channels, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        height, width = x.shape[-2:]
        x = pad_bottom_right(x, max(_LEAST - height, 0), max(_LEAST - width, 0), "replicate")
        y: Tensor = (self.model(2 * x - 1) + 1) / 2
        return y[..., :height, :width]

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "model.1.weight" not in state or f"model.{_BEFORE}.conv_block.1.weight" not in state:
            return None
        channels, in_channels = state["model.1.weight"].shape[:2]
        blocks = sum(1 for name in state if name.endswith("conv_block.1.weight"))
        last = f"model.{count_children(state, 'model') - 1}.weight"
        out_channels = state[last].shape[0] if last in state else in_channels
        return {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": channels,
            "blocks": blocks,
        }
