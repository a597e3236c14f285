"""Base of early networks that restore only luminance, or work on the bicubically upsampled photo.

SRCNN, FSRCNN, ESPCN and VDSR were trained and evaluated on Y of BT.601, with Cb and Cr upsampled by bicubic
interpolation. Here such a network takes the small photo: RGB, of which it restores the luminance, or one
channel, which is then the luminance.

Legend: B samples, C channels, H height, W width, s scale.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.image import RGB_PER_LUMINANCE, YCBCR, YCBCR_OFFSET, cubic_pieces, levels_half_up
from restora.networks.base import Network

_LUMA = tuple(weight / 255 for weight in YCBCR[0])
_LUMA_OFFSET = YCBCR_OFFSET[0] / 255


def precise(x: Tensor) -> Tensor:
    """The photo in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def luma(x: Tensor) -> Tensor:
    """RGB (B,3,H,W) in [0,1] -> Y of BT.601, (B,1,H,W) in [16/255, 235/255], as in MATLAB's rgb2ycbcr."""
    red, green, blue = precise(x).unbind(1)
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + _LUMA_OFFSET).unsqueeze(1)


def _keys_cubic(distance: float) -> float:
    """Keys' cubic with a = -1/2."""
    d = abs(distance)
    near, far = cubic_pieces(d)
    if d <= 1:
        return near
    return far if d < 2 else 0.0


class BicubicEnlargement(nn.Module):
    """(B,C,H,W) -> (B,C,sH,sW) by Keys' cubic, borders mirrored with the edge pixel repeated.

    It equals MATLAB's imresize; torch's own bicubic has a = -3/4 and other borders. It is a sum of shifted
    photos in float32 at least, so that neither autocast nor TF32 affects the pixels. `round_8bit` rounds to 8
    bits on the [0,1] scale, as imresize does for uint8.
    """

    def __init__(self, *, scale: int, round_8bit: bool) -> None:
        super().__init__()
        self.scale = scale
        self.round_8bit = round_8bit
        # phase p is (p + 1/2)/s - 1/2 pixels from its source: five taps cover both sides
        self._taps = [
            [_keys_cubic((p + 0.5) / scale - 0.5 - offset) for offset in range(-2, 3)] for p in range(scale)
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = precise(x)
        if self.scale == 1:
            return x
        y = self._enlarge(self._enlarge(x, dim=2), dim=3)
        return levels_half_up(y).div(255) if self.round_8bit else y

    def _enlarge(self, x: Tensor, dim: int) -> Tensor:
        size = x.shape[dim]
        position = torch.arange(-2, size + 2, device=x.device)
        position = torch.where(position < 0, -1 - position, position)
        position = torch.where(position >= size, 2 * size - 1 - position, position).clamp(0, size - 1)
        padded = x.index_select(dim, position)
        phases = []
        for taps in self._taps:
            shifted = [padded.narrow(dim, i, size) * tap for i, tap in enumerate(taps) if tap]
            phases.append(sum(shifted[1:], shifted[0]))
        return torch.stack(phases, dim + 1).flatten(dim, dim + 1)


class LuminanceNetwork(Network):
    """Restores Y and keeps the bicubic Cb and Cr, or (`luminance=False`) restores all channels together.

    A subclass implements `predict` on `self.channels` channels, of the upsampled photo if `on_enlarged`, else
    of the small one.
    """

    color: ClassVar[str] = "y"
    """The meaning of the channel of a network with one channel."""
    on_enlarged: ClassVar[bool]

    def __init__(self, *, scale: int, in_channels: int, luminance: bool, round_8bit: bool) -> None:
        super().__init__()
        if luminance and in_channels not in (1, 3):
            raise ValueError(
                f"network.in_channels must be 1 (Y) or 3 (RGB) with network.luminance, got {in_channels}"
            )
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.channels = 1 if luminance else in_channels
        self.enlarge = BicubicEnlargement(scale=scale, round_8bit=round_8bit)

    @staticmethod
    def colours(weight: Tensor) -> dict[str, Any]:
        """The arguments that the first convolution (F,C,k,k) gives; none for luminance."""
        channels = weight.shape[1]
        return {} if channels == 1 else {"luminance": False, "in_channels": channels}

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """(B,channels,h,w), upsampled or small -> (B,channels,sH,sW)."""

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        own = next(self.parameters()).dtype  # what is computed before is float32 at least
        if self.channels == self.in_channels:
            return self.predict((self.enlarge(x) if self.on_enlarged else x).to(own))
        enlarged: Tensor = self.enlarge(x)  # (B,3,sH,sW)
        y_enlarged = luma(enlarged)  # (B,1,sH,sW)
        y = self.predict((y_enlarged if self.on_enlarged else luma(x)).to(own))
        restored = enlarged + (y - y_enlarged) * RGB_PER_LUMINANCE
        return restored.to(torch.promote_types(own, x.dtype))
