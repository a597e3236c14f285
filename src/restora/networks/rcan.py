"""RCAN: very deep residual groups of blocks with channel attention.

Y. Zhang, K. Li, K. Li, L. Wang, B. Zhong, Y. Fu, "Image Super-Resolution Using Very Deep Residual Channel
Attention Networks", ECCV 2018. Parameter names are those of the authors' checkpoints
(`body.0.body.0.body.3.conv_du.0.weight`, ...), which expect photos on [0,255]: the network multiplies its
input by `rgb_range` and divides its output by it.

Legend: B samples, C channels of the photo, F features, H height, W width, s scale.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.edsr import ResidualTrunk
from restora.networks.layers.blocks import ChannelAttention, conv3x3, count_children, upsampler_scale
from restora.registry import register

_PUBLISHED_RANGE = 255.0


class _AttentionBlock(nn.Module):
    """x + attention(conv(relu(conv(x)))), equation 14."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels),
            ChannelAttention(channels, reduction=reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _ResidualGroup(nn.Module):
    """Blocks and a convolution with a short skip, equation 6."""

    def __init__(self, channels: int, *, blocks: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(_AttentionBlock(channels, reduction=reduction) for _ in range(blocks)),
            conv3x3(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@register("network", "rcan")
class RCAN(ResidualTrunk):
    """EDSR's trunk of residual groups. The paper's size: 10 groups of 20 blocks."""

    whole_photo = True

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        rgb_range: float = _PUBLISHED_RANGE,
    ) -> None:
        parts = (_ResidualGroup(channels, blocks=blocks, reduction=reduction) for _ in range(groups))
        super().__init__(
            parts=parts, scale=scale, in_channels=in_channels, channels=channels, rgb_range=rgb_range
        )

    def as_published(self, arguments: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
        """On [0,255] as the authors' checkpoints: the first weights are divided, the last ones multiplied."""
        factor = _PUBLISHED_RANGE / self.rgb_range
        if factor == 1:
            return self, dict(arguments)
        changed = {**arguments, "rgb_range": _PUBLISHED_RANGE}
        equal, state = type(self)(**changed), self.state_dict()
        for name in state:
            if name == "head.0.weight":
                state[name] = state[name] / factor
            elif name.startswith("tail.1.") or name in ("sub_mean.bias", "add_mean.bias"):
                state[name] = state[name] * factor
        equal.load_state_dict(state)
        return equal.train(self.training), changed

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        return None if "csa.gamma" in state else cls._arguments(state)

    @staticmethod
    def _arguments(state: Mapping[str, Tensor]) -> dict[str, int] | None:
        attention = "body.0.body.0.body.3.conv_du.0.weight"
        if "head.0.weight" not in state or attention not in state:
            return None
        channels, in_channels = state["head.0.weight"].shape[:2]
        return {
            "scale": upsampler_scale(state, "tail.0", channels),
            "in_channels": in_channels,
            "channels": channels,
            "groups": count_children(state, "body") - 1,
            "blocks": count_children(state, "body.0.body") - 1,
            "reduction": channels // state[attention].shape[0],
        }
