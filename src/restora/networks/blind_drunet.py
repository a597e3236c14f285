"""DRUNet for degradations that are unknown but the same all over the photo (`layers/whole_photo.py`).

A convolutional network finds out at each place, from what it sees around it, how the photo is blurred or
how far its dyes have faded: it blurs on where there is little to see, and its colours become patchy. Here
what the encoder sees anywhere scales the features of the decoder everywhere, and the colours can be balanced
over the whole photo before.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from restora.networks.base import Padding
from restora.networks.drunet import DRUNet
from restora.networks.layers.whole_photo import ColourBalance, FeatureScales
from restora.registry import register

_OWN = ("scales.", "balance.")


@register("network", "blind_drunet")
class BlindDRUNet(DRUNet):
    """A residual DRUNet without a condition whose features are scaled by what the whole photo shows.

    `balance`: the colours of a photo of three channels are first changed by an affine map, one for the photo.
    """

    tasks: ClassVar[tuple[str, ...]] = ("deblur", "old_photo")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: tuple[int, int, int, int] = (32, 48, 64, 64),
        blocks: int = 1,
        padding: Padding = "reflect",
        balance: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels, condition_channels=0, channels=channels, blocks=blocks, padding=padding
        )
        if balance and in_channels != 3:
            raise ValueError(
                f"network.balance changes colours, and these photos have {in_channels} channel(s): set "
                "network.balance=false"
            )
        self.scales = FeatureScales(seen=channels[-1], scaled=channels)
        self.balance = ColourBalance() if balance else nn.Identity()

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        x = self.balance(x)
        x1 = self.m_head(x)
        x2 = self.m_down1(x1)
        x3 = self.m_down2(x2)
        x4 = self.m_down3(x3)
        s1, s2, s3, s4 = self.scales(x4)
        y = self.m_up3(s4 * (self.m_body(x4) + x4))
        y = self.m_up2(s3 * (y + x3))
        y = self.m_up1(s2 * (y + x2))
        restored: Tensor = self.m_tail(s1 * (y + x1))
        return x + restored

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int] | bool] | None:
        """The constructor's arguments that a state dict of this architecture was made with, else None."""
        if "scales.of_photo.0.weight" not in state:
            return None
        known = DRUNet.infer_arguments({key: state[key] for key in state if not key.startswith(_OWN)})
        if known is not None:
            del known["condition_channels"]
            known["balance"] = "balance.of_photo.0.weight" in state
        return known
