"""RRDBNet, the generator of ESRGAN, BSRGAN and Real-ESRGAN.

It has residual-in-residual dense blocks without batch norm.

X. Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018; X.
Wang, L. Xie, C. Dong, Y. Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", ICCV Workshops 2021. Parameter names are BasicSR's and Real-ESRGAN's (`conv_first`,
`body.0.rdb1.conv1`, `conv_up1`, ...); checkpoints with ESRGAN's old names (`model.1.sub.0.RDB1.conv1.0`) or
those of BSRGAN (`RRDB_trunk.0.RDB1.conv1`) load too.

Legend: B samples, H height, W width, F features, G growth, u unshuffle, s scale.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv3x3, count_children, he_initialise, upsampling_steps
from restora.registry import register

_RESIDUAL_SCALE = 0.2


class ResidualDenseBlock(nn.Module):
    """x + 0.2 * five densely connected convolutions: (B,F,H,W) -> same."""

    def __init__(self, *, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 5):
            self.add_module(f"conv{number}", conv3x3(channels + (number - 1) * growth, growth))
        self.conv5 = conv3x3(channels + 4 * growth, channels)
        he_initialise(self, scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        dense = x
        for number in range(1, 5):
            y = F.leaky_relu(self.get_submodule(f"conv{number}")(dense), 0.2, inplace=True)  # (B,G,H,W)
            dense = torch.cat((dense, y), dim=1)  # (B,F+number*G,H,W)
        return torch.add(x, self.conv5(dense), alpha=_RESIDUAL_SCALE)


class RRDB(nn.Module):
    """x + 0.2 * three dense blocks in a row: (B,F,H,W) -> same."""

    def __init__(self, *, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(channels=channels, growth=growth)
        self.rdb2 = ResidualDenseBlock(channels=channels, growth=growth)
        self.rdb3 = ResidualDenseBlock(channels=channels, growth=growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=_RESIDUAL_SCALE)


@register("network", "rrdbnet")
class RRDBNet(Network):
    """The whole network. It upsamples by scale * unshuffle after a pixel unshuffle of its input.

    Real-ESRGAN's x2 and x1 networks have unshuffle 2 and 4, so that, like its x4 network, they upsample by 4
    internally; ESRGAN's networks have unshuffle 1.
    """

    tasks: ClassVar[tuple[str, ...]] = (
        "super_resolution",
        "denoise",
        "deblur",
        "jpeg",
        "inpaint",
        "colourise",
    )

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 64,
        blocks: int = 23,
        growth: int = 32,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        if unshuffle < 1:
            raise ValueError(f"network.unshuffle must be 1 (none) or more, got {unshuffle}")
        self.scale, self.unshuffle, self.size_multiple = scale, unshuffle, unshuffle
        self.in_channels, self.out_channels = in_channels, out_channels
        self.steps = upsampling_steps(scale * unshuffle)
        self.conv_first = conv3x3(in_channels * unshuffle**2, channels)
        self.body = nn.Sequential(*(RRDB(channels=channels, growth=growth) for _ in range(blocks)))
        self.conv_body = conv3x3(channels, channels)
        for number in range(1, len(self.steps) + 1):
            self.add_module(f"conv_up{number}", conv3x3(channels, channels))
        self.conv_hr = conv3x3(channels, channels)
        self.conv_last = conv3x3(channels, out_channels)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)  # (B,C*u*u,H/u,W/u)
        first = self.conv_first(x)  # (B,F,H/u,W/u)
        y = first + self.conv_body(self.body(first))
        for number, step in enumerate(self.steps, start=1):
            y = F.interpolate(y, scale_factor=float(step), mode="nearest")
            y = F.leaky_relu(self.get_submodule(f"conv_up{number}")(y), 0.2, inplace=True)
        y = F.leaky_relu(self.conv_hr(y), 0.2, inplace=True)  # (B,F,sH,sW)
        restored: Tensor = self.conv_last(y)
        return restored

    @classmethod
    def adapt_weights(cls, state: Mapping[str, Any]) -> dict[str, Any]:
        """Renames a state dict of any of the three published naming schemes to the current one."""
        upsamplings = sum(re.fullmatch(r"model\.\d+\.weight", name) is not None for name in state) - 3
        blocks = _count(state, r"model\.1\.sub\.(\d+)\.RDB1\.")
        renames = [
            (r"RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
            (r"trunk_conv\.", "conv_body."),
            (r"upconv(\d)\.", r"conv_up\1."),
            (r"HRconv\.", "conv_hr."),
            (r"model\.0\.", "conv_first."),
            (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
            (rf"model\.1\.sub\.{blocks}\.(?=weight|bias)", "conv_body."),
            *((rf"model\.{3 * number}\.", f"conv_up{number}.") for number in range(1, upsamplings + 1)),
            (rf"model\.{3 * upsamplings + 2}\.", "conv_hr."),
            (rf"model\.{3 * upsamplings + 4}\.", "conv_last."),
        ]
        renamed = {}
        for name, value in state.items():
            for pattern, replacement in renames:
                new, found = re.subn("^" + pattern, replacement, name)
                if found:
                    break
            renamed[new] = value
        return renamed

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        A first convolution with 4 or 16 times the channels of the output is taken as an unshuffled input;
        scale 3 cannot be distinguished from scale 2.
        """
        state = cls.adapt_weights(state)
        if "conv_first.weight" not in state or "body.0.rdb1.conv1.weight" not in state:
            return None
        channels, folded = state["conv_first.weight"].shape[:2]
        out_channels = state["conv_last.weight"].shape[0]
        unshuffle = (
            math.isqrt(folded // out_channels) if folded in (4 * out_channels, 16 * out_channels) else 1
        )
        return {
            "scale": 2 ** _count(state, r"conv_up(\d)\.") // unshuffle,
            "in_channels": folded // unshuffle**2,
            "out_channels": out_channels,
            "channels": channels,
            "blocks": count_children(state, "body"),
            "growth": state["body.0.rdb1.conv1.weight"].shape[0],
            "unshuffle": unshuffle,
        }


def _count(state: Mapping[str, Any], pattern: str) -> int:
    """How many different values the pattern's group has among the names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
