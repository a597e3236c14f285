"""EDCNN: a plain encoder-decoder of 23 convolutional layers, to compare kinds of upsampling.

Two layers at the photo's size, four encoder blocks of two, four decoder blocks of three, one output layer
with tanh: the layers of U-Net (O. Ronneberger et al., MICCAI 2015), with or without its skips. The first
layer of a decoder block upsamples, in one of five ways:

- bilinear: interpolation, then a 3x3 convolution (Odena et al., "Deconvolution and Checkerboard Artifacts",
  Distill 2016);
- transposed: a transposed 2x2 convolution with stride 2;
- pixel_shuffle: a 3x3 convolution to four times the channels, then a pixel shuffle (Shi et al., CVPR 2016);
- unpooling: a 3x3 convolution, its output placed where the encoder's maximum was (Zeiler and Fergus, ECCV
  2014);
- reshape: a pixel shuffle of the input channels, then a 3x3 convolution.

The network works on the range [-1, 1] internally, so its output lies within (0, 1).

Legend: B samples, H height, W width, C channels of a level.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv3x3, count_children, he_initialise
from restora.registry import register

Upsampling = Literal["bilinear", "transposed", "pixel_shuffle", "unpooling", "reshape"]


class Enlarge(nn.Module):
    """(B,coarse,H,W) -> (B,fine,2H,2W) by one convolution and one rearrangement.

    `places`, (B,fine,H,W,4) of 0 and 1, marks the position of the encoder's maximum in each 2 x 2 square.
    """

    def __init__(self, coarse: int, fine: int, *, way: Upsampling) -> None:
        super().__init__()
        self.way = way
        if way == "transposed":
            self.conv: nn.Module = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        elif way == "pixel_shuffle":
            self.conv = conv3x3(coarse, 4 * fine)
        else:
            self.conv = conv3x3(coarse // 4 if way == "reshape" else coarse, fine)

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        if self.way == "bilinear":
            x = self.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        elif self.way == "reshape":
            x = self.conv(F.pixel_shuffle(x, 2))
        elif self.way == "pixel_shuffle":
            x = F.pixel_shuffle(self.conv(x), 2)
        elif self.way == "unpooling":
            assert places is not None
            x = unpool(self.conv(x), places)
        else:
            x = self.conv(x)
        return F.relu(x)


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,C,2H,2W) -> the maximum of each 2 x 2 square, (B,C,H,W), and its position one-hot, (B,C,H,W,4)."""
    b, c, h, w = x.shape
    squares = x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(3, 4).flatten(-2)  # (B,C,H,W,4)
    maximum, place = squares.max(-1)
    return maximum, (place.unsqueeze(-1) == torch.arange(4, device=x.device)).to(x.dtype)


def unpool(x: Tensor, places: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,2H,2W): each value at its position in the 2 x 2 square, zeros elsewhere."""
    b, c, h, w = x.shape
    squares = x.unsqueeze(-1) * places  # (B,C,H,W,4)
    return squares.view(b, c, h, w, 2, 2).transpose(3, 4).reshape(b, c, 2 * h, 2 * w)


@register("network", "edcnn")
class EDCNN(Network):
    """The whole network; `channels` are those of its levels, from the photo's size down."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "inpaint", "colourise")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        upsampling: Upsampling = "transposed",
        skips: bool = True,
    ) -> None:
        super().__init__()
        if upsampling not in get_args(Upsampling):
            known = ", ".join(get_args(Upsampling))
            raise ValueError(f"network.upsampling must be one of {known}; got {upsampling!r}")
        if upsampling == "reshape" and any(coarse % 4 for coarse in channels[1:]):
            raise ValueError(
                f"network.upsampling=reshape needs multiples of 4 in network.channels, got {[*channels]}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 2 ** (len(channels) - 1)
        self.with_places, self.with_skips = upsampling == "unpooling", skips
        pairs = list(pairwise(channels))  # (fine, coarse) of neighbouring levels
        self.input = _two_layers(in_channels, channels[0])
        self.encoder = nn.ModuleList(_two_layers(fine, coarse) for fine, coarse in pairs)
        pairs.reverse()
        self.ups = nn.ModuleList(Enlarge(coarse, fine, way=upsampling) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(_two_layers(2 * fine if skips else fine, fine) for fine, _ in pairs)
        self.output = conv3x3(channels[0], out_channels)
        he_initialise(self)
        with torch.no_grad():
            self.output.weight.mul_(0.1)  # to avoid saturating tanh

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        Bilinear and unpooling have the same weights; bilinear is assumed.
        """
        if not {"input.0.weight", "ups.0.conv.weight", "output.weight"} <= state.keys():
            return None
        levels = range(count_children(state, "encoder"))
        first = state["input.0.weight"]
        channels = [first.shape[0], *(state[f"encoder.{level}.0.weight"].shape[0] for level in levels)]
        after, before = state["ups.0.conv.weight"].shape[:2]
        if state["ups.0.conv.weight"].shape[-1] == 2:
            upsampling = "transposed"
        elif after == 4 * channels[-2]:
            upsampling = "pixel_shuffle"
        else:
            upsampling = "reshape" if before == channels[-1] // 4 else "bilinear"
        return {
            "in_channels": first.shape[1],
            "out_channels": state["output.weight"].shape[0],
            "channels": channels,
            "upsampling": upsampling,
            "skips": state["decoder.0.0.weight"].shape[1] == 2 * channels[-2],
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        y = self.input(2 * x - 1)  # (B,C_0,H,W)
        skips, places = [], []
        for stage in self.encoder:
            skips.append(y)
            y, place = pool(y) if self.with_places else (F.max_pool2d(y, 2), None)
            places.append(place)
            y = stage(y)  # (B,C_i,H/2^i,W/2^i)
        for up, stage in zip(self.ups, self.decoder, strict=True):
            y = up(y, places.pop())
            skip = skips.pop()
            y = stage(torch.cat((skip, y), dim=1) if self.with_skips else y)
        return 0.5 * (torch.tanh(self.output(y)) + 1)


def _two_layers(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(in_channels, out_channels), nn.ReLU(), conv3x3(out_channels, out_channels), nn.ReLU()
    )
