"""FastDVDnet: five noisy frames of a video -> the middle one, by two cascaded U-Nets, without optical flow.

M. Tassano, J. Delon, T. Veit, "FastDVDnet: Towards Real-Time Deep Video Denoising Without Flow Estimation",
CVPR 2020, section 3 and figure 1. Parameter names are those of the authors' checkpoints
(`temp1.inc.convblock.0.weight`, ...), which have a `module.` before them.

Legend: B samples, T frames, C channels of a frame, F features, H height, W width.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import batch_norm_folded, conv3x3, he_initialise
from restora.registry import register

_WINDOW = 3
"""Frames that one block sees."""
_START = 0.1
"""Factor of the last convolution of each block at the start: the first output is nearly the noisy frame."""


class _Block(nn.Module):
    """A sequence under the name that it has in the checkpoints."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.convblock = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convblock(x)
        return y


def _layer(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A 3x3 convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False, groups=groups)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class TwoConvs(_Block):
    """(B,F,H,W) -> (B,F,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(*_layer(channels, channels), *_layer(channels, channels))


class InputConvs(_Block):
    """(B,W(C+1),H,W) -> (B,F,H,W): features of each frame apart, then of all frames together."""

    def __init__(self, frame_channels: int, features: int, channels: int) -> None:
        each = _layer(_WINDOW * (frame_channels + 1), _WINDOW * features, groups=_WINDOW)
        super().__init__(*each, *_layer(_WINDOW * features, channels))


class Down(_Block):
    """(B,F,H,W) -> (B,F',H/2,W/2)."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__(*_layer(fine, coarse, stride=2), TwoConvs(coarse))


class Up(_Block):
    """(B,F',H,W) -> (B,F,2H,2W)."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__(TwoConvs(coarse), conv3x3(coarse, 4 * fine, bias=False), nn.PixelShuffle(2))


class DenoisingBlock(nn.Module):
    """Three frames and the noise level -> the middle frame: a U-Net that adds its skips (figure 1b)."""

    def __init__(self, frame_channels: int, features: int, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.inc = InputConvs(frame_channels, features, fine)
        self.downc0, self.downc1 = Down(fine, middle), Down(middle, coarse)
        self.upc2, self.upc1 = Up(coarse, middle), Up(middle, fine)
        self.outc = _Block(*_layer(fine, fine), conv3x3(fine, frame_channels, bias=False))

    def forward(self, frames: Sequence[Tensor], level: Tensor) -> Tensor:
        """Three of (B,C,H,W) and (B,1,H,W) -> (B,C,H,W)."""
        planes = [plane for frame in frames for plane in (frame, level)]
        full = self.inc(torch.cat(planes, dim=1))  # (B,F0,H,W)
        half = self.downc0(full)  # (B,F1,H/2,W/2)
        quarter = self.downc1(half)  # (B,F2,H/4,W/4)
        half = half + self.upc2(quarter)  # (B,F1,H/2,W/2)
        full = full + self.upc1(half)  # (B,F0,H,W)
        return frames[_WINDOW // 2] - self.outc(full)


@register("network", "fastdvdnet")
class FastDVDnet(Network):
    """Five frames, folded into channels in the order of time, -> the middle one.

    The first block restores the three frames in the middle, each from itself and its neighbours; the second
    one restores the middle frame from these three. `in_channels` counts those of all five frames. `channels`
    are those at full, half and quarter size; `frame_features` are computed of each frame alone. `condition`
    is (B,1,H,W), sigma/255 at every pixel, the same for all frames.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)
    frames = 5
    size_multiple = 4
    condition_channels = 1

    def __init__(
        self, *, in_channels: int = 15, channels: Sequence[int] = (32, 64, 128), frame_features: int = 30
    ) -> None:
        super().__init__()
        if in_channels < self.frames or in_channels % self.frames:
            raise ValueError(
                f"network.in_channels counts those of all {self.frames} frames, got {in_channels}: set "
                f"{3 * self.frames} for frames in colour, {self.frames} for grey ones"
            )
        if len(channels) != 3:
            raise ValueError(
                "network.channels are those at full, half and quarter size, such as [32, 64, 128], got "
                f"{list(channels)}"
            )
        self.in_channels, self.out_channels = in_channels, in_channels // self.frames
        self.temp1 = DenoisingBlock(self.out_channels, frame_features, channels)
        self.temp2 = DenoisingBlock(self.out_channels, frame_features, channels)
        he_initialise(self)
        with torch.no_grad():
            for block in (self.temp1, self.temp2):
                block.outc.convblock[-1].weight.mul_(_START)  # type: ignore[operator]

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        level = condition.to(x.dtype)
        frames = x.split(self.out_channels, dim=1)  # T of (B,C,H,W)
        windows = (frames[first : first + _WINDOW] for first in range(self.frames - _WINDOW + 1))
        restored: Tensor = self.temp2([self.temp1(window, level) for window in windows], level)
        return restored

    def fold_batch_norm(self) -> "FastDVDnet":
        """An equal network without batch norm, for inference."""
        network = copy.deepcopy(self)
        for module in network.modules():
            if isinstance(module, _Block):
                module.convblock = nn.Sequential(*_folded(list(module.convblock)))
        return network

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        names = [f"temp1.{part}.weight" for part in ("downc0.convblock.0", "downc1.convblock.0")]
        if any(name not in state for name in ("temp1.inc.convblock.0.weight", *names)):
            return None
        first = state["temp1.inc.convblock.0.weight"]  # (3F,C+1,3,3)
        middle, coarse = (state[name] for name in names)  # (F1,F0,3,3), (F2,F1,3,3)
        return {
            "in_channels": cls.frames * (first.shape[1] - 1),
            "channels": [middle.shape[1], middle.shape[0], coarse.shape[0]],
            "frame_features": first.shape[0] // _WINDOW,
        }


def _folded(layers: list[nn.Module]) -> list[nn.Module]:
    """The layers of a sequence, each batch norm folded into the convolution before it."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = folded.pop()
            assert isinstance(convolution, nn.Conv2d)
            layer = batch_norm_folded(convolution, layer).train(layer.training)
        folded.append(layer)
    return folded
