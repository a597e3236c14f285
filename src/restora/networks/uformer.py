"""Uformer: a five-level U-Net of window attention and feed-forward layers with a depthwise convolution.

Z. Wang, X. Cun, J. Bao, W. Zhou, J. Liu, H. Li, "Uformer: A General U-Shaped Transformer for Image
Restoration", CVPR 2022. Parameter names are those of the authors' checkpoints
(`encoderlayer_0.blocks.0.attn.qkv.to_q.weight`, `dowsample_0.conv.0.weight`, ...).

Notable: it takes any height and width, where the authors' code pads a photo to a square with black; one
matrix product makes queries, keys and values. Published checkpoints also hold the table indices in every
block, which are dropped on loading and written by `published_state_dict`.

Legend: B samples, C channels, H height, W width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv3x3, count_children
from restora.networks.layers.channels_last import to_channels_first, to_channels_last
from restora.networks.layers.swin_blocks import initialise_linear
from restora.networks.layers.uformer_blocks import Downsample, Stage, Upsample
from restora.networks.layers.windows import growing_drops
from restora.registry import register


class _Convolution(nn.Module):
    """The first or the last convolution, under its published name."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers)


@register("network", "uformer")
class Uformer(Network):
    """The whole network; the output is added to the input.

    `depths` and `heads` are nine numbers each, for encoder, bottleneck and decoder. `modulator` adds learned
    values to the decoder's windows. `drop_path` is the stochastic depth of the bottleneck in training,
    growing from 0 at the first block. `image_size` is the training patch of the weights: a level that is no
    larger than a window for this patch has a window of its own size and no shift, also for larger photos (in
    the authors' evaluation it is 128, so the bottleneck has no shift).
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "derain")
    computed_names: ClassVar[tuple[str, ...]] = ("relative_position_index",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 32,
        depths: Sequence[int] = (1, 2, 8, 8, 2, 8, 8, 2, 1),
        heads: Sequence[int] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        window: int = 8,
        mlp_ratio: float = 4.0,
        modulator: bool = True,
        drop_path: float = 0.1,
        image_size: int = 128,
    ) -> None:
        super().__init__()
        _check(channels, depths, heads, window, image_size)
        self.in_channels = self.out_channels = in_channels
        c = channels
        falling = [drops[::-1] for drops in reversed(growing_drops(drop_path, depths[:4:-1]))]
        drops = [*growing_drops(drop_path, depths[:4]), [drop_path] * depths[4], *falling]

        def stage(position: int, width: int) -> Stage:
            side = image_size >> min(position, 8 - position)
            return Stage(
                channels=width,
                heads=heads[position],
                window=min(window, side),
                shifted=side > window,
                mlp_ratio=mlp_ratio,
                drops=drops[position],
                modulated=window if modulator and position > 4 else None,
            )

        self.input_proj = _Convolution(conv3x3(in_channels, c), nn.LeakyReLU(inplace=True))
        for level in range(4):
            self.add_module(f"encoderlayer_{level}", stage(level, c << level))
            self.add_module(f"dowsample_{level}", Downsample(c << level, c << level + 1))
        self.conv = stage(4, 16 * c)
        for level in range(4):
            width = 16 * c >> level
            self.add_module(f"upsample_{level}", Upsample(16 * c if level == 0 else 2 * width, width // 2))
            self.add_module(f"decoderlayer_{level}", stage(5 + level, width))
        self.output_proj = _Convolution(conv3x3(2 * c, in_channels))
        self.size_multiple = math.lcm(*(min(window, image_size >> level) << level for level in range(5)))
        self.apply(initialise_linear)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        y = to_channels_last(self.input_proj.proj(x))  # (B,H,W,C)
        skips = []
        for level in range(4):
            y = self.get_submodule(f"encoderlayer_{level}")(y)
            skips.append(y)
            y = self.get_submodule(f"dowsample_{level}")(y)
        y = self.conv(y)  # (B,H/16,W/16,16C)
        for level in range(4):
            y = self.get_submodule(f"upsample_{level}")(y)
            y = self.get_submodule(f"decoderlayer_{level}")(torch.cat((y, skips.pop()), dim=-1))
        return x + self.output_proj.proj(to_channels_first(y))

    def published_state_dict(self) -> dict[str, Tensor]:
        state = super().published_state_dict()
        for name, module in self.named_modules():
            if isinstance(module, Stage):
                for position in range(len(module.blocks)):
                    index = f"{name}.blocks.{position}.attn.relative_position_index"
                    state[index] = module.relative_positions
        return state

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        `image_size` cannot be inferred, unless it was so small that the bottleneck's window is smaller than
        the others.
        """
        stages = [*(f"encoderlayer_{i}" for i in range(4)), "conv", *(f"decoderlayer_{i}" for i in range(4))]
        tables = [f"{stage}.blocks.0.attn.relative_position_bias_table" for stage in stages]
        if not all(table in state for table in tables) or "conv.blocks.0.attn.qkv.to_q.weight" not in state:
            return None
        channels, in_channels = state["input_proj.proj.0.weight"].shape[:2]
        windows = [(math.isqrt(state[table].shape[0]) + 1) // 2 for table in tables]
        hidden = state["encoderlayer_0.blocks.0.mlp.linear1.0.weight"].shape[0]
        found = {
            "in_channels": in_channels,
            "channels": channels,
            "depths": [count_children(state, f"{stage}.blocks") for stage in stages],
            "heads": [state[table].shape[1] for table in tables],
            "window": windows[0],
            "mlp_ratio": hidden / channels,
            "modulator": "decoderlayer_0.blocks.0.modulator.weight" in state,
        }
        return found | ({"image_size": 16 * windows[4]} if windows[4] < windows[0] else {})


def _check(channels: int, depths: Sequence[int], heads: Sequence[int], window: int, image_size: int) -> None:
    if len(depths) != 9 or len(heads) != 9:
        raise ValueError(
            f"Uformer has nine stages: network.depths and network.heads need nine numbers each, "
            f"got {len(depths)} and {len(heads)}"
        )
    widths = [channels << level for level in range(5)] + [16 * channels >> level for level in range(4)]
    for position, (width, count) in enumerate(zip(widths, heads, strict=True)):
        if count < 1 or width % count:
            raise ValueError(
                f"stage {position + 1} of Uformer has {width} channels, {count} heads do not divide: "
                "change network.channels or network.heads"
            )
    if window < 1:
        raise ValueError(f"network.window must be 1 or more, got {window}")
    if image_size % 16 or image_size // 8 < window:
        raise ValueError(
            f"network.image_size must be a multiple of 16 and at least eight windows, got {image_size} "
            f"with windows of {window}"
        )
