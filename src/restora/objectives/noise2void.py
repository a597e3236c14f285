"""Noise2Void: a few pixels are hidden from the network, which learns to predict them.

A. Krull, T.-O. Buchholz, F. Jug, "Noise2Void: Learning Denoising from Single Noisy Images", CVPR 2019. The
network cannot copy a hidden pixel: where noise is independent from pixel to pixel it learns the mean of the
hidden pixel given its surroundings. The hidden pixel is replaced by a neighbour; N2V2 (E. Höck et al., ECCV
Workshops 2022) uses the median of the window instead, against checkerboard artefacts.

Note: one pixel is hidden in each box of a grid, at a keyed random position. A margin separates hidden pixels,
so that a hidden value never replaces another one: the spots are exactly blind.

Legend: B samples, C channels, H height, W width, n hidden pixels.
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from restora import processes
from restora.keyed import KeyedGenerator
from restora.objectives.base import Setting, Step, Terms
from restora.objectives.without_clean import WithoutClean
from restora.registry import register

Replacement = Literal["neighbour", "neighbour_or_itself", "median"]


@register("objective", "noise2void")
class Noise2Void(WithoutClean):
    """The squared error at hidden pixels.

    `percent` of the pixels are hidden at a step (0.198 is one in 22 x 22, the authors'). The replacement is
    taken from a window of `radius` around the pixel, as far as it lies in the photo: `neighbour` is any other
    pixel, `neighbour_or_itself` any (the authors' `uniform_withCP`), `median` that of the others (N2V2).
    """

    def __init__(
        self,
        *,
        percent: float = 0.198,
        radius: int = 2,
        replacement: Replacement = "neighbour",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < percent <= 10:
            raise ValueError(f"objective.noise2void.percent must be above 0 and at most 10, got {percent}")
        self.side = round(math.sqrt(100 / percent))
        if not 1 <= radius < self.side:
            raise ValueError(
                f"objective.noise2void.radius must be from 1 to {self.side - 1} where {percent} percent are "
                f"hidden (one in {self.side}x{self.side}), got {radius}"
            )
        if replacement not in get_args(Replacement):
            raise ValueError(
                f"objective.noise2void.replacement must be {', '.join(get_args(Replacement))}, got "
                f"{replacement!r}"
            )
        self.radius, self.replacement = radius, replacement

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.patch_size < self.side:
            raise ValueError(
                f"objective Noise2Void hides one pixel in {self.side}x{self.side}, the patches are "
                f"{setting.patch_size}: set data.patch_size={self.side} or more, or raise "
                "objective.noise2void.percent"
            )

    def terms(self, step: Step) -> Terms:
        noisy = step.degraded
        shown, hidden = self.hide(noisy, step.generator("noise2void"))
        restored = step.restore(shown, step.condition)
        error = (restored - noisy.float()).square().mean(1, keepdim=True)  # (B,1,H,W)
        return {"": (error * hidden).sum() / processes.averaged(hidden.sum()).clamp(min=1)}

    def hide(self, noisy: Tensor, generator: KeyedGenerator) -> tuple[Tensor, Tensor]:
        """The photos with some pixels replaced, (B,C,H,W), and a mask (B,1,H,W), 1 at these pixels."""
        height, width = noisy.shape[-2:]
        row, column, inside = self._places(height, width, generator)  # (B,n) each
        flat = noisy.flatten(2)  # (B,C,HW)
        values = self._replacements(flat, row, column, (height, width), generator)  # (B,C,n)
        nowhere = height * width  # one more position, for pixels outside the photo
        place = torch.where(inside, row * width + column, nowhere)
        spare = flat.new_zeros(*flat.shape[:2], 1)
        spot = place[:, None].expand(values.shape)
        shown = torch.cat((flat, spare), 2).scatter(2, spot, values)[..., :nowhere].view(noisy.shape)
        hidden = torch.zeros(len(noisy), nowhere + 1, device=noisy.device).scatter_(1, place, 1.0)
        return shown, hidden[:, :nowhere].view(-1, 1, height, width)

    def _places(self, height: int, width: int, generator: KeyedGenerator) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns, and whether they lie in the photo, (B,n): one pixel per box of a shifted grid."""
        side, device = self.side, generator.device
        boxes = [math.ceil(length / side) + 1 for length in (height, width)]
        count = boxes[0] * boxes[1]
        shift = generator.integers(0, side, (2, 1))
        within = generator.integers(0, side - self.radius, (2, count))
        index = torch.arange(count, device=device)
        row = (index // boxes[1]) * side - shift[:, 0] + within[:, 0]
        column = (index % boxes[1]) * side - shift[:, 1] + within[:, 1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return row.clamp(0, height - 1), column.clamp(0, width - 1), inside

    def _replacements(
        self, flat: Tensor, row: Tensor, column: Tensor, size: tuple[int, int], generator: KeyedGenerator
    ) -> Tensor:
        """The replacements of the hidden pixels, (B,C,n), from the part of their windows in the photo."""
        if self.replacement == "median":
            return self._medians(flat, row, column, size)
        top, left = (row - self.radius).clamp(min=0), (column - self.radius).clamp(min=0)  # (B,n)
        high = (row + self.radius).clamp(max=size[0] - 1) - top + 1
        wide = (column + self.radius).clamp(max=size[1] - 1) - left + 1
        count, drawn = high * wide, row.shape[1:]
        if self.replacement == "neighbour":
            chosen = generator.integers(0, count - 1, drawn)
            itself = (row - top) * wide + column - left
            chosen = chosen + (chosen >= itself)  # numbered without the pixel itself
        else:
            chosen = generator.integers(0, count, drawn)
        place = (top + chosen // wide) * size[1] + left + chosen % wide
        return flat.gather(2, place[:, None].expand(-1, flat.shape[1], -1))

    def _medians(self, flat: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Tensor:
        """The median of each hidden pixel's window without the pixel itself, (B,C,n)."""
        offset = torch.arange(-self.radius, self.radius + 1, device=flat.device)
        rows, columns = row[..., None, None] + offset[:, None], column[..., None, None] + offset  # (B,n,k,1)
        used = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])  # (B,n,k,k)
        used = used & ((offset[:, None] != 0) | (offset != 0))
        place = rows.clamp(0, size[0] - 1) * size[1] + columns.clamp(0, size[1] - 1)
        values = flat.gather(2, place.flatten(1)[:, None].expand(-1, flat.shape[1], -1))
        values = values.unflatten(2, (row.shape[1], -1)).masked_fill(~used.flatten(2)[:, None], torch.inf)
        ordered = values.sort(-1).values  # (B,C,n,k*k), those that are not used last
        count = used.sum((2, 3))[:, None, :, None].expand(*ordered.shape[:3], 1)
        both = ordered.gather(-1, (count - 1) // 2) + ordered.gather(-1, count // 2)
        return both[..., 0] / 2
