"""SwinIR: groups of shifted-window transformer blocks between two convolutions.

Each group ends with a convolution.

J. Liang, J. Cao, G. Sun, K. Zhang, L. Van Gool, R. Timofte, "SwinIR: Image Restoration Using Swin
Transformer", ICCV Workshops 2021. Parameter names are those of the authors' checkpoints
(`layers.0.residual_group.blocks.0.attn.qkv.weight`, ...).

Notable: features stay (B,H,W,C); the shifted windows' mask is computed once per forward pass from the
photo's size and shared by all blocks; published checkpoints also hold this mask for one size and the table
indices in every block, which are dropped on loading and written by `published_state_dict`.

Legend: B samples, C channels, H height, W width, s scale, w window side, n windows in a photo, N = w*w, h
heads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.blocks import PixelShuffleUpsampler, conv3x3, count_children, upsampler_scale
from restora.networks.layers.channels_last import LayerNorm
from restora.networks.layers.swin_blocks import (
    Connection,
    ResidualGroup,
    SwinBlock,
    SwinNetwork,
    check_groups,
    initialise_linear,
    residual_convolution,
)
from restora.networks.layers.windows import PUBLISHED_MASKED, growing_drops, shifted_window_mask
from restora.registry import register

Upsampler = Literal["none", "pixelshuffle", "pixelshuffledirect", "nearest+conv"]


@register("network", "swinir")
class SwinIR(SwinNetwork):
    """The whole network; `upsampler` chooses the head.

    "none" adds a residual to the input (denoising, JPEG), "pixelshuffle" is the classical super-resolution
    head, "pixelshuffledirect" the lightweight one, "nearest+conv" the real-world one (scales 2, 4 and 8).
    `value_range` is the internal range of the photo (255 in the published JPEG networks). `drop_path` is the
    stochastic depth of the last block in training, growing linearly from 0 at the first. `image_size` only
    affects `published_state_dict`: the mask is stored for this side.
    """

    computed_names: ClassVar[tuple[str, ...]] = ("relative_position_index", "attn_mask")

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window: int = 8,
        mlp_ratio: float = 2.0,
        scale: int = 1,
        upsampler: Upsampler = "none",
        connection: Connection = "1conv",
        head_channels: int = 64,
        value_range: float = 1.0,
        drop_path: float = 0.1,
        image_size: int = 64,
    ) -> None:
        _check(channels, depths, heads, window, scale, upsampler, connection, image_size)
        super().__init__(
            in_channels=in_channels, channels=channels, window=window, scale=scale, value_range=value_range
        )
        self.image_size, self.upsampler = image_size, upsampler
        self.layers = nn.ModuleList(
            ResidualGroup(
                channels=channels,
                heads=count,
                window=window,
                mlp_ratio=mlp_ratio,
                drops=drops,
                connection=connection,
            )
            for count, drops in zip(heads, growing_drops(drop_path, depths), strict=True)
        )
        self.norm = LayerNorm(channels)
        self.conv_after_body = residual_convolution(channels, connection)
        self._make_head(channels, head_channels)
        self.apply(initialise_linear)

    def _make_head(self, channels: int, head_channels: int) -> None:
        if self.upsampler == "none":
            self.conv_last = conv3x3(channels, self.out_channels)
        elif self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(
                conv3x3(channels, self.scale**2 * self.out_channels), nn.PixelShuffle(self.scale)
            )
        else:
            self.conv_before_upsample = nn.Sequential(
                conv3x3(channels, head_channels), nn.LeakyReLU(inplace=True)
            )
            self.conv_last = conv3x3(head_channels, self.out_channels)
            if self.upsampler == "pixelshuffle":
                self.upsample = PixelShuffleUpsampler(head_channels, scale=self.scale)
            else:
                for step in range(self.scale.bit_length() - 1):
                    self.add_module(f"conv_up{step + 1}", conv3x3(head_channels, head_channels))
                self.conv_hr = conv3x3(head_channels, head_channels)

    def head(self, y: Tensor, x: Tensor) -> Tensor:
        if self.upsampler == "none":
            return x + self.conv_last(y)
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(y)
        y = self.conv_before_upsample(y)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(y))
        for step in range(self.scale.bit_length() - 1):
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = F.leaky_relu(self.get_submodule(f"conv_up{step + 1}")(y), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2))

    def published_state_dict(self) -> dict[str, Tensor]:
        side, window = self.image_size, self.window
        mask = shifted_window_mask(side, side, size=window, by=window // 2, like=self.mean)
        mask = mask.clamp(min=PUBLISHED_MASKED)
        state = super().published_state_dict()
        for name, module in self.named_modules():
            if isinstance(module, SwinBlock):
                state[f"{name}.attn.relative_position_index"] = self.relative_positions
                if module.attn.shift_by:
                    state[f"{name}.attn_mask"] = mask
        return state

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        `value_range` cannot be inferred; it is 255 for windows of 7, which only the published JPEG networks
        have.
        """
        first = "layers.0.residual_group.blocks.0"
        if "conv_first.weight" not in state or f"{first}.attn.qkv.weight" not in state:
            return None
        if f"{first}.conv_block.cab.0.weight" in state:
            return None  # HAT
        channels, in_channels = state["conv_first.weight"].shape[:2]
        groups = [f"layers.{i}.residual_group.blocks" for i in range(count_children(state, "layers"))]
        tables = [state[f"{group}.0.attn.relative_position_bias_table"].shape for group in groups]
        window = (math.isqrt(tables[0][0]) + 1) // 2
        found = {
            "in_channels": in_channels,
            "channels": channels,
            "depths": [count_children(state, group) for group in groups],
            "heads": [heads for _, heads in tables],
            "window": window,
            "mlp_ratio": state[f"{first}.mlp.fc1.weight"].shape[0] / channels,
            "connection": "1conv" if "conv_after_body.weight" in state else "3conv",
            "value_range": 255.0 if window == 7 else 1.0,
        }
        mask = state.get("layers.0.residual_group.blocks.1.attn_mask")
        if mask is not None:
            found["image_size"] = math.isqrt(mask.shape[0]) * window
        return found | _read_off_the_head(state)


def _read_off_the_head(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """upsampler, scale and head_channels of a state dict."""
    if "conv_before_upsample.0.weight" not in state:
        if "upsample.0.weight" not in state:
            return {"upsampler": "none", "scale": 1}
        ratio = state["upsample.0.weight"].shape[0] // state["conv_first.weight"].shape[1]
        return {"upsampler": "pixelshuffledirect", "scale": math.isqrt(ratio)}
    width = state["conv_before_upsample.0.weight"].shape[0]
    if "conv_up1.weight" in state:
        steps = sum(f"conv_up{step}.weight" in state for step in (1, 2, 3))
        return {"upsampler": "nearest+conv", "scale": 2**steps, "head_channels": width}
    scale = upsampler_scale(state, "upsample", width)
    return {"upsampler": "pixelshuffle", "scale": scale, "head_channels": width}


def _check(
    channels: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: int,
    scale: int,
    upsampler: str,
    connection: str,
    image_size: int,
) -> None:
    check_groups(channels, depths, heads)
    if upsampler not in get_args(Upsampler):
        raise ValueError(
            f"network.upsampler must be one of {', '.join(get_args(Upsampler))}, got {upsampler}"
        )
    if connection not in get_args(Connection):
        raise ValueError(
            f"network.connection must be one of {', '.join(get_args(Connection))}, got {connection}"
        )
    if (scale == 1) != (upsampler == "none"):
        raise ValueError(
            f'network.upsampler must be "none" at network.scale=1 and only there, got {upsampler} at '
            f"scale {scale}"
        )
    if upsampler == "nearest+conv" and scale not in (2, 4, 8):
        raise ValueError(f"network.upsampler=nearest+conv doubles the size: scale 2, 4 or 8, got {scale}")
    if image_size <= window or image_size % window:
        raise ValueError(
            f"network.image_size={image_size} must be a larger multiple of network.window={window}"
        )
