"""Neighbor2Neighbor: two half-size photos of neighbouring pixels serve as two noisy versions of one photo.

T. Huang et al., "Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy Images", CVPR 2021. Of each
2 x 2 cell two adjacent pixels are drawn, one for each half. Neighbours differ even without noise; the second
term corrects for this difference, estimated from the network's output for the whole photo.

Legend: B samples, C channels, H height, W width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.keyed import KeyedGenerator
from restora.objectives.base import Step, Terms, check_weights
from restora.objectives.without_clean import WithoutClean
from restora.registry import register

_PAIRS = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 1), (3, 2))
"""Adjacent pixels of a cell, numbered by rows."""


@register("objective", "neighbor2neighbor")
class Neighbor2Neighbor(WithoutClean):
    """`|f(a) - b|^2 + w |f(a) - b - (A(f(y)) - B(f(y)))|^2`, a = A(y) and b = B(y) the two halves of y.

    The weight w grows from 0 to `consistency` with the training (the authors' `increase_ratio`, 2).
    """

    def __init__(self, *, consistency: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        check_weights("neighbor2neighbor", consistency=consistency)
        self.consistency = consistency

    def terms(self, step: Step) -> Terms:
        noisy, condition = even(step.degraded), step.condition
        first, second = draw_pairs(noisy, step.generator("neighbor2neighbor"))
        half = None if condition is None else pick(even(condition), first)
        restored = step.restore(pick(noisy, first), half)
        difference = restored - pick(noisy, second).float()
        terms = {"": difference.square().mean()}
        weight = self.consistency * step.progress
        if weight > 0:
            with torch.no_grad():
                whole = even(step.restore(step.degraded, condition))
                expected = pick(whole, first) - pick(whole, second)
            terms["consistency"] = weight * (difference - expected).square().mean()
        return terms


def even(photos: Tensor) -> Tensor:
    """Crops the last row or column where their number is odd."""
    height, width = photos.shape[-2:]
    return photos[..., : height - height % 2, : width - width % 2]


def draw_pairs(noisy: Tensor, generator: KeyedGenerator) -> tuple[Tensor, Tensor]:
    """Which pixel of each cell goes to the first half and which to the second: int64 (B,1,1,H/2,W/2)."""
    height, width = (length // 2 for length in noisy.shape[-2:])
    drawn = generator.integers(0, len(_PAIRS), (1, 1, height, width))
    pairs = torch.tensor(_PAIRS, device=noisy.device)
    return pairs[drawn, 0], pairs[drawn, 1]


def pick(photos: Tensor, which: Tensor) -> Tensor:
    """One pixel of each 2 x 2 cell: (B,C,H,W) -> (B,C,H/2,W/2)."""
    batch, channels, height, width = photos.shape
    cells = F.pixel_unshuffle(photos, 2).view(batch, channels, 4, height // 2, width // 2)
    return cells.gather(2, which.expand(-1, channels, -1, -1, -1))[:, :, 0]
