"""EDSR: a wide and deep network of residual blocks without batch norm.

It is the baseline of most later super-resolution networks.

B. Lim, S. Son, H. Kim, S. Nah, K. M. Lee, "Enhanced Deep Residual Networks for Single Image
Super-Resolution", CVPR Workshops 2017. Parameter names are those of the authors' PyTorch checkpoints
(`head.0.weight`, `body.0.body.0.weight`, `tail.0.0.weight`, ...), which expect photos on [0,255]: the network
multiplies its input by `rgb_range` and divides its output by it.

Legend: B samples, C channels of the photo, F features, H height, W width, s scale.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import (
    MeanShift,
    PixelShuffleUpsampler,
    ResidualBlock,
    conv3x3,
    count_children,
    upsampler_scale,
)
from restora.registry import register


class ResidualTrunk(Network):
    """restored = tail(body(head(x - mean)) + head(x - mean)) + mean: what EDSR, RCAN and HAN share.

    `parts` are the modules of the body before its last convolution; a generator makes them one by one after
    the head. Scale 1 keeps the size (as the authors of EDSR do for deblurring and JPEG).
    """

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "deblur", "jpeg")

    def __init__(
        self, *, parts: Iterable[nn.Module], scale: int, in_channels: int, channels: int, rgb_range: float
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.rgb_range = rgb_range
        self.sub_mean = MeanShift(in_channels, sign=-1, value_range=rgb_range)
        self.add_mean = MeanShift(in_channels, sign=1, value_range=rgb_range)
        self.head = nn.Sequential(conv3x3(in_channels, channels))
        self.body = nn.Sequential(*parts, conv3x3(channels, channels))
        self.tail = nn.Sequential(
            PixelShuffleUpsampler(channels, scale=scale), conv3x3(channels, in_channels)
        )

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        shallow = self.head(self.sub_mean(x * self.rgb_range))  # (B,F,H,W)
        y: Tensor = self.add_mean(self.tail(self.deep(shallow) + shallow).to(x.dtype))  # (B,C,sH,sW)
        return y / self.rgb_range

    def deep(self, shallow: Tensor) -> Tensor:
        """(B,F,H,W) -> (B,F,H,W): the features that are added to those of the head."""
        y: Tensor = self.body(shallow)
        return y

    @classmethod
    @abstractmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> Mapping[str, float] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""


@register("network", "edsr")
class EDSR(ResidualTrunk):
    """Baseline: 16 blocks, 64 channels, residual scale 1. Full: 32, 256 and 0.1.

    `upsampler` "pixelshuffledirect" upsamples by one convolution and pixel shuffle, as ESPCN does (Shi et
    al., CVPR 2016). It saves all work at the large size, at ×4 more than half of that of a small network.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
        rgb_range: float = 255.0,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle",
    ) -> None:
        if upsampler not in ("pixelshuffle", "pixelshuffledirect"):
            raise ValueError(
                f'network.upsampler of EDSR must be "pixelshuffle" or "pixelshuffledirect", got {upsampler!r}'
            )
        parts = (ResidualBlock(channels, residual_scale=residual_scale) for _ in range(blocks))
        super().__init__(
            parts=parts, scale=scale, in_channels=in_channels, channels=channels, rgb_range=rgb_range
        )
        if upsampler == "pixelshuffledirect":
            self.tail = nn.Sequential(conv3x3(channels, in_channels * scale**2), nn.PixelShuffle(scale))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renames BasicSR's parameters of the same network to the authors' names.

        BasicSR's files do not hold the mean colours.
        """
        if "conv_first.weight" not in state:
            return dict(state)
        last = len(self.body) - 1
        adapted = {name: value for name, value in self.state_dict().items() if "_mean." in name}
        for name, value in state.items():
            for theirs, ours in (
                ("conv_first.", "head.0."),
                ("conv_after_body.", f"body.{last}."),
                ("upsample.", "tail.0."),
                ("conv_last.", "tail.1."),
                (".conv1.", ".body.0."),
                (".conv2.", ".body.2."),
            ):
                name = name.replace(theirs, ours)
            adapted[name] = value
        return adapted

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        basicsr = "conv_first.weight" in state
        head, tail = ("conv_first", "upsample") if basicsr else ("head.0", "tail.0")
        if f"{head}.weight" not in state or f"body.0.{'conv1' if basicsr else 'body.0'}.weight" not in state:
            return None
        if "body.0.body.0.body.0.weight" in state:  # RCAN
            return None
        channels, in_channels = state[f"{head}.weight"].shape[:2]
        blocks = count_children(state, "body") - (0 if basicsr else 1)
        found: dict[str, Any] = {
            "scale": upsampler_scale(state, tail, channels),
            "in_channels": in_channels,
            "channels": channels,
            "blocks": blocks,
        }
        if "tail.0.weight" in state:
            scale = math.isqrt(state["tail.0.weight"].shape[0] // in_channels)
            found |= {"scale": scale, "upsampler": "pixelshuffledirect"}
        # the residual scale cannot be inferred; the only published wide network has 0.1
        return found | {"residual_scale": 0.1} if channels == 256 else found
