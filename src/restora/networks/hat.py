"""HAT: shifted-window attention with a parallel convolutional branch of channel attention.

Each group ends with attention over overlapping windows.

X. Chen, X. Wang, J. Zhou, Y. Qiao, C. Dong, "Activating More Pixels in Image Super-Resolution Transformer",
CVPR 2023. Parameter names are those of the authors' checkpoints
(`layers.0.residual_group.blocks.0.conv_block.cab.3.attention.1.weight`, ...).

Notable: overlapping windows are gathered by one indexing of keys and values, where the authors' code unfolds
and rearranges; masks and table indices are made once per forward pass and shared by all blocks. Published
checkpoints also hold the table indices, which are dropped on loading and written by `published_state_dict`.

Legend: B samples, C channels, H height, W width, s scale, w window side, o side of an overlapping window,
n windows in a photo, N = w*w, M = o*o, h heads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import PixelShuffleUpsampler, conv3x3, count_children, upsampler_scale
from restora.networks.layers.channels_last import LayerNorm
from restora.networks.layers.hat_blocks import Connection, ResidualGroup
from restora.networks.layers.swin_blocks import SwinNetwork, check_groups, initialise_linear
from restora.networks.layers.windows import growing_drops, relative_position_index
from restora.registry import register

_PUBLISHED_CONV_SCALE = 0.01


@register("network", "hat")
class HAT(SwinNetwork):
    """The whole network, with the classical super-resolution head (scale 1 restores at the same size).

    `compress` and `squeeze` divide the channels inside the channel-attention branch, which has the weight
    `conv_scale`. `overlap_ratio` is the relative extension of a window's side for overlapping attention.
    `drop_path` is the stochastic depth of the last block in training, growing linearly from 0 at the first.
    """

    whole_photo = True

    computed_names: ClassVar[tuple[str, ...]] = (
        "relative_position_index_SA",
        "relative_position_index_OCA",
        "attn_mask",
    )
    around: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window: int = 16,
        compress: int = 3,
        squeeze: int = 30,
        conv_scale: float = _PUBLISHED_CONV_SCALE,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        scale: int = 4,
        connection: Connection = "1conv",
        head_channels: int = 64,
        value_range: float = 1.0,
        drop_path: float = 0.1,
    ) -> None:
        side = window + int(window * overlap_ratio)
        _check(channels, depths, heads, window, side, compress, squeeze, connection)
        super().__init__(
            in_channels=in_channels, channels=channels, window=window, scale=scale, value_range=value_range
        )
        self.register_buffer("around", relative_position_index(window, looked_at=side), persistent=False)
        self.layers = nn.ModuleList(
            ResidualGroup(
                channels=channels,
                heads=count,
                window=window,
                side=side,
                compress=compress,
                squeeze=squeeze,
                conv_scale=conv_scale,
                mlp_ratio=mlp_ratio,
                drops=drops,
                connection=connection,
            )
            for count, drops in zip(heads, growing_drops(drop_path, depths), strict=True)
        )
        self.norm = LayerNorm(channels)
        self.conv_after_body = conv3x3(channels, channels) if connection == "1conv" else nn.Identity()
        self.conv_before_upsample = nn.Sequential(
            conv3x3(channels, head_channels), nn.LeakyReLU(inplace=True)
        )
        self.upsample = PixelShuffleUpsampler(head_channels, scale=scale)
        self.conv_last = conv3x3(head_channels, in_channels)
        self.apply(initialise_linear)

    def head(self, y: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002
        return self.conv_last(self.upsample(self.conv_before_upsample(y)))

    def tables(self, mask: Tensor) -> tuple[Tensor, ...]:
        return *super().tables(mask), self.around

    def published_state_dict(self) -> dict[str, Tensor]:
        rows = {
            "relative_position_index_SA": self.relative_positions,
            "relative_position_index_OCA": self.around,
        }
        return super().published_state_dict() | rows

    def as_published(self, arguments: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
        """With the authors' `conv_scale`, which checkpoints do not hold.

        The last convolution of the branch is scaled, and the weights of its gate are scaled inversely.
        """
        factor = float(arguments.get("conv_scale", _PUBLISHED_CONV_SCALE)) / _PUBLISHED_CONV_SCALE
        if factor == 1:
            return self, dict(arguments)
        changed = {**arguments, "conv_scale": _PUBLISHED_CONV_SCALE}
        equal, state = HAT(**changed), self.state_dict()
        for name in state:
            if name.endswith(("cab.2.weight", "cab.2.bias")):
                state[name] = state[name] * factor
            elif name.endswith("cab.3.attention.1.weight"):
                state[name] = state[name] / factor
        equal.load_state_dict(state)
        return equal.train(self.training), changed

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        first, overlapping = "layers.0.residual_group.blocks.0", "layers.0.residual_group.overlap_attn"
        if f"{first}.conv_block.cab.0.weight" not in state or "conv_before_upsample.0.weight" not in state:
            return None
        channels, in_channels = state["conv_first.weight"].shape[:2]
        groups = [f"layers.{i}.residual_group" for i in range(count_children(state, "layers"))]
        tables = [state[f"{group}.overlap_attn.relative_position_bias_table"].shape for group in groups]
        window = (math.isqrt(state[f"{first}.attn.relative_position_bias_table"].shape[0]) + 1) // 2
        side = math.isqrt(tables[0][0]) + 1 - window
        head_channels = state["conv_before_upsample.0.weight"].shape[0]
        return {
            "in_channels": in_channels,
            "channels": channels,
            "depths": [count_children(state, f"{group}.blocks") for group in groups],
            "heads": [count for _, count in tables],
            "window": window,
            "compress": channels // state[f"{first}.conv_block.cab.0.weight"].shape[0],
            "squeeze": channels // state[f"{first}.conv_block.cab.3.attention.1.weight"].shape[0],
            "overlap_ratio": (side - window) / window,
            "mlp_ratio": state[f"{overlapping}.mlp.fc1.weight"].shape[0] / channels,
            "scale": upsampler_scale(state, "upsample", head_channels),
            "connection": "1conv" if "conv_after_body.weight" in state else "identity",
            "head_channels": head_channels,
        }


def _check(
    channels: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: int,
    side: int,
    compress: int,
    squeeze: int,
    connection: str,
) -> None:
    check_groups(channels, depths, heads)
    if window < 1 or side < window:
        raise ValueError(
            f"network.window must be 1 or more and network.overlap_ratio 0 or more; the sides are {window} "
            f"and {side}"
        )
    if (side - window) % 2:
        raise ValueError(
            f"network.overlap_ratio lengthens a window's side of {window} to {side}: "
            "the difference must be even"
        )
    if max(compress, squeeze) > channels:
        raise ValueError(f"network.compress and network.squeeze are at most network.channels={channels}")
    if connection not in get_args(Connection):
        known = ", ".join(get_args(Connection))
        raise ValueError(f"network.connection must be one of {known}, got {connection}")
