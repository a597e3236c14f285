"""RCAN: very deep residual groups whose blocks weigh their channels by attention.

Y. Zhang, K. Li, K. Li, L. Wang, B. Zhong, Y. Fu, "Image Super-Resolution Using Very Deep Residual Channel
Attention Networks", ECCV 2018. Parameter names are those of the authors' checkpoints
(`body.0.body.0.body.3.conv_du.0.weight`, ...), which expect photos on [0,255]: `rgb_range` is multiplied in
and divided out inside.

Legend: B samples, C channels of the photo, F features, H height, W width, s scale.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from restora.networks.edsr import ResidualTrunk
from restora.networks.layers.blocks import ChannelAttention, conv3x3, count_children, upsampler_scale
from restora.registry import register


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
    """Blocks and a convolution inside a short skip, equation 6."""

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

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        rgb_range: float = 255.0,
    ) -> None:
        parts = (_ResidualGroup(channels, blocks=blocks, reduction=reduction) for _ in range(groups))
        super().__init__(
            parts=parts, scale=scale, in_channels=in_channels, channels=channels, rgb_range=rgb_range
        )

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments that a state dict of this architecture tells, else None."""
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
