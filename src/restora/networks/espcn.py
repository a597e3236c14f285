"""ESPCN: three convolutions on the small photo and a pixel shuffle; it introduced sub-pixel convolution.

W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
Neural Network", CVPR 2016. Names are those of the PyTorch weights in circulation (`first_part.0.weight`,
`last_part.0.weight`).

Legend: B samples, C channels (1: luminance), H height, W width, s scale.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from restora.networks.layers.luminance import LuminanceNetwork
from restora.registry import register


@register("network", "espcn")
class ESPCN(LuminanceNetwork):
    """5x5 to 64, tanh, 3x3 to 32, tanh, 3x3 to s^2, shuffle (section 3.1: (5,64)-(3,32)-3)."""

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution",)
    on_enlarged: ClassVar[bool] = False

    def __init__(
        self, *, scale: int = 3, in_channels: int = 3, channels: int = 64, luminance: bool = True
    ) -> None:
        super().__init__(scale=scale, in_channels=in_channels, luminance=luminance, round_8bit=False)
        half = channels // 2
        self.first_part = nn.Sequential(
            nn.Conv2d(self.channels, channels, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(channels, half, 3, padding=1),
            nn.Tanh(),
        )
        self.last_part = nn.Sequential(
            nn.Conv2d(half, self.channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    def predict(self, x: Tensor) -> Tensor:
        return self.last_part(self.first_part(x))

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if "first_part.0.weight" not in state or "last_part.0.weight" not in state:
            return None
        first = state["first_part.0.weight"]
        channels, planes = first.shape[:2]
        scale = round((state["last_part.0.weight"].shape[0] / planes) ** 0.5)
        return {"channels": channels, "scale": scale, **cls.colours(first)}
