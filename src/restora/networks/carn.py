"""CARN and CARN-M: residual blocks with cascading connections.

The output of each block is fused with all earlier outputs by a 1x1 convolution.

N. Ahn, B. Kang, K.-A. Sohn, "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network", ECCV 2018. Parameter names are those of the authors' code for one scale (`b1.b1.body.0.weight`,
`upsample.up.body.0.weight`). Their checkpoints hold one trunk and three upsamplers, for x2, x3 and x4;
loading takes the upsampler of this network's scale.

Legend: B samples, C channels of the photo, F features, H height, W width, s scale.
"""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import (
    MeanShift,
    conv1x1,
    conv3x3,
    convolution_names,
    upsampler_scale,
    upsampling_steps,
)
from restora.registry import register


class _Residual(nn.Module):
    """relu(x + body(x)); the body is two convolutions, or (`groups`) two grouped ones and a 1x1: the paper's
    E-block.
    """

    def __init__(self, channels: int, *, groups: int | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            conv3x3(channels, channels, groups=groups or 1),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels, groups=groups or 1),
        ]
        if groups is not None:
            layers += [nn.ReLU(inplace=True), conv1x1(channels, channels)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + x)


class _Fusion(nn.Module):
    """1x1 convolution and ReLU, from all cascaded outputs to F features."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv1x1(inputs, channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _cascade(x: Tensor, units: Sequence[nn.Module], fusions: Sequence[nn.Module]) -> Tensor:
    """The input of each unit is the fusion of x and all outputs so far (equations 5 and 6); returns the last
    fusion.
    """
    gathered, y = x, x
    for unit, fusion in zip(units, fusions, strict=True):
        gathered = torch.cat((gathered, unit(y)), dim=1)
        y = fusion(gathered)
    return y


class _CascadingBlock(nn.Module):
    """Three residual blocks in a cascade; with `groups` one efficient block, applied three times (section
    3.3).
    """

    def __init__(self, channels: int, *, groups: int | None) -> None:
        super().__init__()
        self.b1 = _Residual(channels, groups=groups)
        self.b2 = _Residual(channels, groups=None) if groups is None else None
        self.b3 = _Residual(channels, groups=None) if groups is None else None
        self.c1, self.c2, self.c3 = (_Fusion(n * channels, channels) for n in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return _cascade(x, (self.b1, self.b2 or self.b1, self.b3 or self.b1), (self.c1, self.c2, self.c3))


class _Upsampler(nn.Module):
    """(B,F,H,W) -> (B,F,sH,sW): convolution, ReLU and pixel shuffle for each factor."""

    def __init__(self, channels: int, *, scale: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in upsampling_steps(scale):
            widen = conv3x3(channels, step * step * channels, groups=groups)
            layers += [widen, nn.ReLU(inplace=True), nn.PixelShuffle(step)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@register("network", "carn")
class CARN(Network):
    """restored = exit(upsample(cascade of three cascading blocks(entry(x - mean)))) + mean."""

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg")

    def __init__(
        self, *, scale: int = 4, in_channels: int = 3, channels: int = 64, groups: int | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        # nested as in the authors' checkpoints
        self.sub_mean = nn.ModuleDict({"shifter": MeanShift(in_channels, sign=-1)})
        self.add_mean = nn.ModuleDict({"shifter": MeanShift(in_channels, sign=1)})
        self.entry = conv3x3(in_channels, channels)
        self.b1, self.b2, self.b3 = (_CascadingBlock(channels, groups=groups) for _ in range(3))
        self.c1, self.c2, self.c3 = (_Fusion(n * channels, channels) for n in (2, 3, 4))
        self.upsample = nn.ModuleDict({"up": _Upsampler(channels, scale=scale, groups=groups or 1)})
        self.exit = conv3x3(channels, in_channels)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        shallow = self.entry(self.sub_mean["shifter"](x))  # (B,F,H,W)
        deep = _cascade(shallow, (self.b1, self.b2, self.b3), (self.c1, self.c2, self.c3))
        y = self.exit(self.upsample["up"](deep))  # (B,C,sH,sW)
        return self.add_mean["shifter"](y.to(x.dtype))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Selects the upsampler of this network's scale from a checkpoint for several scales."""
        wanted = f"upsample.up{self.scale}."
        if not any(name.startswith(wanted) for name in state):
            return dict(state)
        others = re.compile(r"upsample\.up\d+\.")
        return {
            name.replace(wanted, "upsample.up."): value
            for name, value in state.items()
            if name.startswith(wanted) or not others.match(name)
        }

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | None] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        `scale` cannot be inferred from a checkpoint for several scales.
        """
        body = convolution_names(state, "b1.b1.body")
        if "entry.weight" not in state or len(body) < 2 or "c3.body.0.weight" not in state:
            return None
        channels, in_channels = state["entry.weight"].shape[:2]
        efficient = len(body) == 3
        groups = channels // state[body[0]].shape[1] if efficient else None
        found = {"in_channels": in_channels, "channels": channels, "groups": groups}
        if "upsample.up.body.0.weight" in state:
            found["scale"] = upsampler_scale(state, "upsample.up.body", channels)
        elif not any(name.startswith("upsample.") for name in state):
            found["scale"] = 1
        return found
