"""The planes of a video frame and RGB, both ways, in float32: Y'CbCr of any matrix, range and depth.

Recommendations ITU-R BT.601, BT.709 and BT.2020 define Y' = Kr R + Kg G + Kb B, Cb = (B - Y') / (2 - 2 Kb)
and Cr = (R - Y') / (2 - 2 Kr). In limited range, 8-bit Y' goes from 16 to 235, and Cb and Cr from 16 to 240;
in full range all go from 0 to 255.

Where colour is stored at half the size, it is enlarged linearly, and reduced by the filter that undoes just
this: (-1, 2, 6, 2, -1) / 8 where its samples lie on those of Y', (-1, 3, 3, -1) / 4 where they lie between
two. So a frame that a network leaves as it is keeps its numbers, with two exceptions: numbers that stand for
no colour, such as whiter than white, become the nearest one, and colour in the last row or column of a frame
of odd size may change.

Legend: H height, W width, h w of the planes of colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Matrix = Literal["rgb", "grey", "bt601", "bt709", "bt2020", "smpte240m", "fcc"]
_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
"""Kr and Kb."""


@dataclass(frozen=True)
class Coding:
    """What the numbers in planes stand for.

    The planes are R, G, B; or Y'; or Y', Cb, Cr, with the latter two 2**`across` times narrower and
    2**`down` times lower. `centred`: samples of colour lie between those of Y' in both directions (JPEG,
    MPEG-1), rather than in the vertical one alone.
    """

    matrix: Matrix
    full: bool
    bits: int = 8
    across: int = 0
    down: int = 0
    centred: bool = False

    def plane_size(self, number: int, height: int, width: int) -> tuple[int, int]:
        """(h, w) of a plane of a frame of this size."""
        if number == 0 or self.matrix in ("rgb", "grey"):
            return height, width
        return -(-height >> self.down), -(-width >> self.across)


def to_rgb(planes: Sequence[Tensor], coding: Coding) -> Tensor:
    """Whole numbers (H,W), (h,w), (h,w) or (H,W) -> float32 (1,3,H,W) or (1,1,H,W) in [0,1]."""
    first, *rest = (plane.float()[None, None] for plane in planes)
    top = 2**coding.bits - 1
    if coding.matrix == "rgb":
        return torch.cat([first, *rest], dim=1).div_(top)
    black, span, middle, spread = _levels(coding)
    luma = first.sub_(black).div_(span)
    if coding.matrix == "grey":
        return luma.clamp_(0, 1)
    height, width = luma.shape[2:]
    cb, cr = torch.cat(rest).sub_(middle).div_(spread).split(1)
    cb, cr = (_enlarged(plane, coding)[..., :height, :width] for plane in (cb, cr))
    kr, kb = _WEIGHTS[coding.matrix]
    red, blue = luma + (2 - 2 * kr) * cr, luma + (2 - 2 * kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return torch.cat([red, green, blue], dim=1).clamp_(0, 1)


def from_rgb(x: Tensor, coding: Coding) -> list[Tensor]:
    """(1,3,H,W) or (1,1,H,W) in [0,1] -> planes of the nearest whole numbers, as int32.

    A grey picture has neutral planes of colour; a picture for `grey` has one channel.
    """
    top = 2**coding.bits - 1
    if coding.matrix == "rgb":
        return [_whole(plane * top, top) for plane in x.expand(-1, 3, -1, -1)[0]]
    black, span, middle, spread = _levels(coding)
    if coding.matrix == "grey":
        return [_whole(x[0, 0] * span + black, top)]
    kr, kb = _WEIGHTS[coding.matrix]
    red, green, blue = x.expand(-1, 3, -1, -1).split(1, dim=1)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    colour = torch.cat([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    cb, cr = _reduced(colour, coding)
    planes = (luma[0, 0] * span + black, cb[0] * spread + middle, cr[0] * spread + middle)
    return [_whole(plane, top) for plane in planes]


def _levels(coding: Coding) -> tuple[float, float, float, float]:
    """Black, white minus black, neutral colour, and the range of colour."""
    step, top = 2.0 ** (coding.bits - 8), 2.0**coding.bits - 1
    middle = 128 * step
    return (0, top, middle, top) if coding.full else (16 * step, 219 * step, middle, 224 * step)


def _whole(plane: Tensor, top: int) -> Tensor:
    return plane.round().clamp_(0, top).to(torch.int32)


def _enlarged(plane: Tensor, coding: Coding) -> Tensor:
    """(B,1,h,w) -> (B,1,h * 2**down, w * 2**across)."""
    for _ in range(coding.across):
        plane = _twice(plane, centred=coding.centred)
    for _ in range(coding.down):
        plane = _twice(plane.mT, centred=True).mT
    return plane


def _twice(plane: Tensor, *, centred: bool) -> Tensor:
    """(B,1,h,w) -> (B,1,h,2w), linearly between samples."""
    after = torch.cat([plane[..., 1:], plane[..., -1:]], dim=-1)
    if not centred:
        return torch.stack([plane, (plane + after) / 2], dim=-1).flatten(-2)
    before = torch.cat([plane[..., :1], plane[..., :-1]], dim=-1)
    return torch.stack([plane * 0.75 + before * 0.25, plane * 0.75 + after * 0.25], dim=-1).flatten(-2)


def _reduced(plane: Tensor, coding: Coding) -> Tensor:
    """(B,1,H,W) -> (B,1,h,w), which undoes `_enlarged`."""
    for _ in range(coding.down):
        plane = _half(plane.mT, centred=True).mT
    for _ in range(coding.across):
        plane = _half(plane, centred=coding.centred)
    return plane


def _half(plane: Tensor, *, centred: bool) -> Tensor:
    """(B,1,h,w) -> (B,1,h,(w+1)//2)."""
    width = plane.shape[-1]
    odd = width % 2
    taps = (-1 / 4, 3 / 4, 3 / 4, -1 / 4) if centred else (-1 / 8, 2 / 8, 6 / 8, 2 / 8, -1 / 8)
    padded = F.pad(plane, (1, 1 + odd, 0, 0) if centred else (2, 1 + odd, 0, 0), mode="replicate")
    count = (width + odd) // 2
    ends = [at + 2 * count - 1 for at in range(len(taps))]
    return sum(
        (tap * padded[..., at:end:2] for at, (tap, end) in enumerate(zip(taps, ends, strict=True))),
        start=torch.zeros((), device=plane.device),
    )
