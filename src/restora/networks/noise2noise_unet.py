"""Noise2Noise's U-Net: five poolings at one width, nearest upsampling, the photo itself as the last skip.

J. Lehtinen et al., "Noise2Noise: Learning Image Restoration without Clean Data", ICML 2018, appendix A.1:
991,203 parameters for colour; parameter names are those of the authors' code (NVlabs/noise2noise).
Neighbor2Neighbor (CVPR 2021) uses the same network. The authors' photos are on [-0.5, 0.5]; the network
shifts its input.

Legend: B samples, C channels, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.registry import register

_DEPTH = 5
_SLOPE = 0.1


@register("network", "noise2noise_unet")
class Noise2NoiseUNet(Network):
    """`channels` F features in the encoder, 2 F in the decoder, 4/3 F and 2/3 F before the output."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "inpaint")
    size_multiple = 2**_DEPTH

    def __init__(self, *, in_channels: int = 3, channels: int = 48) -> None:
        super().__init__()
        if channels < 3 or channels % 3:
            raise ValueError(f"network.channels must be a multiple of 3, got {channels}")
        self.in_channels = self.out_channels = in_channels
        self.enc_conv0 = _conv(in_channels, channels)
        for level in range(1, _DEPTH + 2):
            setattr(self, f"enc_conv{level}", _conv(channels, channels))
        wide = 2 * channels
        for level in range(_DEPTH, 1, -1):
            # the deepest level takes the encoder's features from below, the others the decoder's
            below = channels if level == _DEPTH else wide
            setattr(self, f"dec_conv{level}", _conv(below + channels, wide))
            setattr(self, f"dec_conv{level}b", _conv(wide, wide))
        self.dec_conv1a = _conv(wide + in_channels, 4 * channels // 3)
        self.dec_conv1b = _conv(4 * channels // 3, 2 * channels // 3)
        self.dec_conv1c = _conv(2 * channels // 3, in_channels, gain=1.0)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        photo = x - 0.5  # (B,C,H,W)
        skips = [photo]
        f = self._lrelu("enc_conv0", photo)  # (B,F,H,W)
        for level in range(1, _DEPTH + 1):
            f = F.max_pool2d(self._lrelu(f"enc_conv{level}", f), 2)  # (B,F,H/2^level,W/2^level)
            skips.append(f)
        f = self._lrelu(f"enc_conv{_DEPTH + 1}", skips.pop())
        for level in range(_DEPTH, 1, -1):
            f = torch.cat((F.interpolate(f, scale_factor=2, mode="nearest"), skips.pop()), 1)
            f = self._lrelu(f"dec_conv{level}b", self._lrelu(f"dec_conv{level}", f))  # (B,2F,…)
        f = torch.cat((F.interpolate(f, scale_factor=2, mode="nearest"), skips.pop()), 1)  # (B,2F+C,H,W)
        f = self._lrelu("dec_conv1b", self._lrelu("dec_conv1a", f))
        y: Tensor = self.dec_conv1c(f) + 0.5
        return y

    def _lrelu(self, name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(getattr(self, name)(x), _SLOPE, inplace=True)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renames `dec_conv1`, another name of the output."""
        return {name.replace("dec_conv1.", "dec_conv1c."): value for name, value in state.items()}

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "enc_conv0.weight" not in state or "dec_conv1a.weight" not in state:
            return None
        channels, in_channels = state["enc_conv0.weight"].shape[:2]
        return {"in_channels": in_channels, "channels": channels}


def _conv(in_channels: int, out_channels: int, *, gain: float = 2**0.5) -> nn.Conv2d:
    """3x3 with the authors' initialisation: He's normal, biases zero."""
    made = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.normal_(made.weight, std=gain / (9 * in_channels) ** 0.5)
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    return made
