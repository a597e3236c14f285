"""The U-Net generator of pix2pix.

It has eight strided convolutions down to a single position, and eight transposed ones back.

P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks",
CVPR 2017. Parameter names are those of the authors' PyTorch checkpoints, where each level is nested in the
one above it (`model.model.0.weight`, `model.model.1.model.1.weight`, ...).

Notable: in the authors' code an in-place LeakyReLU also changes the skip, so skips carry LeakyReLU(x) instead
of x as in the paper; the checkpoints were trained this way. The network works on the range [-1, 1]
internally, so its output lies within (0, 1).

Legend: B samples, H height, W width, C channels outside a level, I inside it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import InstanceNorm2d
from restora.registry import register

Norm = Literal["batch", "instance"]


class Level(nn.Module):
    """One level and all levels below it: (B,C,H,W) -> (B,2C,H,W), skip and result."""

    def __init__(
        self, outside: int, inside: int, *, below: nn.Module | None, norm: Norm, dropout: float
    ) -> None:
        super().__init__()
        bias = norm == "instance"  # a batch norm cancels it
        layers: list[nn.Module] = [
            nn.LeakyReLU(0.2),
            nn.Conv2d(outside, inside, 4, stride=2, padding=1, bias=bias),
        ]
        if below is not None:
            layers += [_norm(norm, inside), below]
        from_below = inside if below is None else 2 * inside
        layers += [
            nn.ReLU(),
            nn.ConvTranspose2d(from_below, outside, 4, stride=2, padding=1, bias=bias),
            _norm(norm, outside),
        ]
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.model
        skip = y = first(x)  # LeakyReLU
        for layer in others:
            y = layer(y)
        return torch.cat((skip, y), dim=1)


class Outermost(nn.Module):
    """(B,C,H,W) -> (B,C',H,W): the first convolution, all levels below, the last transposed convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, inside: int, *, below: nn.Module, norm: Norm
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(in_channels, inside, 4, stride=2, padding=1, bias=norm == "instance"),
            below,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * inside, out_channels, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


@register("network", "pix2pix_unet")
class Pix2PixUNet(Network):
    """The whole network.

    `downs` is 8 in the paper, for 256 x 256; widths double up to eight times `channels`.

    Dropout is used in the inner levels of that width, only in training; the paper keeps it at test time as a
    source of noise.
    """

    tasks: ClassVar[tuple[str, ...]] = ("colourise", "inpaint", "denoise", "deblur", "jpeg")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 64,
        downs: int = 8,
        norm: Norm = "batch",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if downs < 2 or norm not in ("batch", "instance"):
            raise ValueError(
                f'network.downs must be 2 or more and norm "batch" or "instance", got {downs} and "{norm}"'
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 2**downs
        widths = [channels * min(2**level, 8) for level in range(downs)]
        below: nn.Module | None = None
        for level in range(downs - 1, 0, -1):
            drops = dropout if level >= 4 and below is not None else 0.0
            below = Level(widths[level - 1], widths[level], below=below, norm=norm, dropout=drops)
        assert below is not None
        self.model = Outermost(in_channels, out_channels, channels, below=below, norm=norm)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(part.weight, std=0.02)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        Dropout cannot be inferred.
        """
        if (
            not {"model.model.0.weight", "model.model.3.weight", "model.model.1.model.1.weight"}
            <= state.keys()
        ):
            return None
        convolutions = [name for name, value in state.items() if value.ndim == 4]
        first = state["model.model.0.weight"]
        return {
            "in_channels": first.shape[1],
            "out_channels": state["model.model.3.weight"].shape[1],  # of a transposed convolution
            "channels": first.shape[0],
            "downs": len(convolutions) // 2,
            "norm": "batch" if any(name.endswith("running_mean") for name in state) else "instance",
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        return 0.5 * (torch.tanh(self.model(2 * x - 1)) + 1)


def _norm(name: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if name == "batch" else InstanceNorm2d(channels)
