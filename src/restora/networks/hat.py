"""HAT: shifted-window attention beside a convolutional channel-attention branch, and attention over windows
that overlap at the end of each group.

X. Chen, X. Wang, J. Zhou, Y. Qiao, C. Dong, "Activating More Pixels in Image Super-Resolution Transformer",
CVPR 2023. Parameter names are those of the authors' checkpoints
(`layers.0.residual_group.blocks.0.conv_block.cab.3.attention.1.weight`, ...).

Notable: overlapping windows are one lookup in the keys and values, where the authors' code unfolds and
rearranges; masks and table rows are made once per forward pass and shared by all blocks. Published
checkpoints also hold the tables' rows, which are dropped on loading and written by `published_state_dict`.

Legend: B samples, C channels, H height, W width, s scale, w window side, o side of an overlapping window,
n windows in a photo, N = w*w, M = o*o, h heads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.blocks import (
    DIV2K_MEAN,
    PixelShuffleUpsampler,
    conv3x3,
    count_children,
    upsampler_scale,
)
from restora.networks.channels_last import LayerNorm, to_channels_first, to_channels_last
from restora.networks.hat_blocks import (
    Connection,
    HybridBlock,
    OverlappingAttention,
    Positions,
    ResidualGroup,
)
from restora.networks.swin_blocks import PatchEmbed, initialise_linear
from restora.networks.windows import growing_drops, relative_position_index, shifted_window_mask


class HAT(Network):
    """The whole network, with the classical super-resolution head (scale 1 restores at the same size).

    `compress` and `squeeze` divide the channels inside the channel-attention branch, which counts
    `conv_scale`. `overlap_ratio` is by how much a window's side is longer for the attention that overlaps.
    `drop_path` is the stochastic depth of the last block in training, growing linearly from none at the
    first.
    """

    family: ClassVar[str] = "transformer"
    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg")
    computed_names: ClassVar[tuple[str, ...]] = (
        "relative_position_index_SA",
        "relative_position_index_OCA",
        "attn_mask",
    )
    inside: Tensor
    around: Tensor
    mean: Tensor

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
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        scale: int = 4,
        connection: Connection = "1conv",
        head_channels: int = 64,
        value_range: float = 1.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        side = window + int(window * overlap_ratio)
        _check(channels, depths, heads, window, side, compress, squeeze, connection)
        self.in_channels = self.out_channels = in_channels
        self.scale, self.size_multiple = scale, window
        self.window, self.value_range = window, value_range
        mean = DIV2K_MEAN if in_channels == 3 else (0.0,) * in_channels
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("inside", relative_position_index(window), persistent=False)
        self.register_buffer("around", relative_position_index(window, looked_at=side), persistent=False)

        self.conv_first = conv3x3(in_channels, channels)
        self.patch_embed = PatchEmbed(channels=channels)
        drops = growing_drops(drop_path, sum(depths))
        self.layers = nn.ModuleList()
        for depth, count in zip(depths, heads, strict=True):
            blocks = [
                HybridBlock(
                    channels=channels,
                    heads=count,
                    window=window,
                    shift_by=position % 2 * (window // 2),
                    compress=compress,
                    squeeze=squeeze,
                    conv_scale=conv_scale,
                    mlp_ratio=mlp_ratio,
                    drop=drops.pop(0),
                )
                for position in range(depth)
            ]
            overlapping = OverlappingAttention(
                channels=channels, heads=count, window=window, side=side, mlp_ratio=mlp_ratio
            )
            self.layers.append(ResidualGroup(blocks, overlapping, channels=channels, connection=connection))
        self.norm = LayerNorm(channels)
        self.conv_after_body = conv3x3(channels, channels) if connection == "1conv" else nn.Identity()
        self.conv_before_upsample = nn.Sequential(
            conv3x3(channels, head_channels), nn.LeakyReLU(inplace=True)
        )
        self.upsample = PixelShuffleUpsampler(head_channels, scale=scale)
        self.conv_last = conv3x3(head_channels, in_channels)
        self.apply(initialise_linear)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        x = (x - self.mean) * self.value_range
        shallow = self.conv_first(x)
        y = self.conv_after_body(to_channels_first(self._features(to_channels_last(shallow)))) + shallow
        y = self.conv_last(self.upsample(self.conv_before_upsample(y)))  # (B,C',sH,sW)
        return y / self.value_range + self.mean

    def _features(self, x_BHWC: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        mask = shifted_window_mask(height, width, size=self.window, by=self.window // 2, like=x_BHWC)
        positions = Positions(self.inside, self.around, mask)
        x_BHWC = self.patch_embed.norm(x_BHWC)
        for layer in self.layers:
            x_BHWC = layer(x_BHWC, positions)
        return self.norm(x_BHWC)

    def published_state_dict(self) -> dict[str, Tensor]:
        rows = {"relative_position_index_SA": self.inside, "relative_position_index_OCA": self.around}
        return super().published_state_dict() | rows

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments that a state dict of this architecture was made with; None for
        another's."""
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
    if len(depths) != len(heads):
        raise ValueError(
            f"network.depths has {len(depths)} groups, network.heads {len(heads)}: give one each"
        )
    if bad := [count for count in heads if channels % count]:
        raise ValueError(f"network.heads has {bad[0]}, which does not divide network.channels={channels}")
    if (side - window) % 2:
        raise ValueError(
            f"network.overlap_ratio lengthens a window's side of {window} to {side}: "
            "the difference must be even"
        )
    if max(compress, squeeze) > channels:
        raise ValueError(f"network.compress and network.squeeze are at most network.channels={channels}")
    if connection not in get_args(Connection):
        known = ", ".join(get_args(Connection))
        raise ValueError(f"network.connection is one of {known}, got {connection}")
