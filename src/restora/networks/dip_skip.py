"""The hourglass network with thin skips that Deep Image Prior fits to one photo.

D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep Image Prior", CVPR 2018. Module names are those of the authors'
`skip`: it numbers modules from 1, and branches 0 (skip) and 1 (deeper), so `1.0.1.1.weight` is the first
skip's convolution.

Note: its input is not a photo but a code of 32 planes, and it is fitted in training mode, with batch norm
over the one photo.

Legend: B samples, C planes of the code, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.registry import register


@register("network", "dip_skip")
class DipSkip(Network):
    """(B,in_channels,H,W) -> (B,out_channels,H,W) in [0,1] by a sigmoid.

    `skip_channels` are 4 for denoising, super-resolution and JPEG, 128 for inpainting; 0 leaves skips out.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "super_resolution", "inpaint", "jpeg", "deblur")

    def __init__(
        self,
        *,
        in_channels: int = 32,
        out_channels: int = 3,
        channels: int = 128,
        scales: int = 5,
        skip_channels: int = 4,
        upsampling: Literal["bilinear", "nearest"] = "bilinear",
    ) -> None:
        super().__init__()
        if scales < 1:
            raise ValueError(f"network.scales must be at least 1 (halvings of the photo), got {scales}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size_multiple = 2**scales
        level = _level(in_channels, channels, skip_channels, scales, upsampling)
        for name, module in level.named_children():
            self.add_module(name, module)
        self.add_module(str(len(level) + 1), _convolution(channels, out_channels, 1))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        for module in self.children():
            x = module(x)
        return x.sigmoid()

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        The kind of upsampling cannot be inferred.
        """
        skip = state.get("1.0.1.1.weight")
        first, within = ("1.1.1.weight", "1.7.") if skip is None else ("1.1.1.1.weight", "1.1.7.")
        if first not in state or "9.1.weight" not in state or state[first].ndim != 4:
            return None
        scales = 1
        while any(name.startswith(within * scales) for name in state):
            scales += 1
        channels, inputs = state[first].shape[:2]
        return {
            "in_channels": inputs,
            "out_channels": state["9.1.weight"].shape[0],
            "channels": channels,
            "scales": scales,
            "skip_channels": 0 if skip is None else skip.shape[0],
        }


class _Reflect(nn.Module):
    """Pads one pixel by reflection; a side of one pixel is replicated."""

    def forward(self, x: Tensor) -> Tensor:
        for dim, pad in ((-1, (1, 1, 0, 0)), (-2, (0, 0, 1, 1))):
            mode = "reflect" if x.shape[dim] > 1 else "replicate"
            x = nn.functional.pad(x, pad, mode=mode)
        return x


class _Branches(nn.Module):
    """The skip and the deeper branch of one input, side by side."""

    def __init__(self, skip: nn.Module, deeper: nn.Module) -> None:
        super().__init__()
        self.add_module("0", skip)
        self.add_module("1", deeper)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def _numbered(modules: Sequence[nn.Module]) -> nn.Sequential:
    """An `nn.Sequential` whose names count from 1."""
    made = nn.Sequential()
    for number, module in enumerate(modules, start=1):
        made.add_module(str(number), module)
    return made


def _convolution(inputs: int, outputs: int, side: int, *, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, side, stride)
    return nn.Sequential(_Reflect() if side > 1 else nn.Identity(), convolution)


def _unit(inputs: int, outputs: int, side: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = _convolution(inputs, outputs, side, stride=stride)
    return [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]


def _level(inputs: int, channels: int, skip: int, scales: int, upsampling: str) -> nn.Sequential:
    """One scale and all scales below it; input and output have the same size."""
    deeper = [*_unit(inputs, channels, 3, stride=2), *_unit(channels, channels, 3)]
    if scales > 1:
        deeper.append(_level(channels, channels, skip, scales - 1, upsampling))
    deeper.append(nn.Upsample(scale_factor=2, mode=upsampling))
    below = _numbered(deeper)
    first = _Branches(_numbered(_unit(inputs, skip, 1)), below) if skip else below
    joined = nn.BatchNorm2d(skip + channels)
    return _numbered([first, joined, *_unit(skip + channels, channels, 3), *_unit(channels, channels, 1)])
