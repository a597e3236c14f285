"""Free-form brush strokes: the masks of free-form inpainting."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.missing.masking import Masking
from restora.degradations.parameters import Range, as_number, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "brush_strokes")
class BrushStrokes(Masking):
    """`strokes` zigzag strokes of `vertices` segments.

    `width` and `length` of a segment are shares of the shorter side.

    After the free-form masks of DeepFill v2 (Yu et al., ICCV 2019, supplement): directions turn by 72 +- 24
    degrees and every other one is reversed, lengths are drawn uniformly, joints are round. Each stroke ends
    after a random number of segments.
    """

    def __init__(
        self,
        *,
        strokes: int = 4,
        vertices: int = 8,
        width: Range = (0.05, 0.15),
        length: Range = (0.1, 0.4),
        fill: float = 0.0,
    ) -> None:
        if strokes < 1 or vertices < 1:
            raise ValueError(f"strokes and vertices must be at least 1, got {strokes} and {vertices}")
        self.strokes, self.vertices = strokes, vertices
        self.fill = as_number("fill", fill, least=0, most=1)
        self.width = as_range("width", width, least=0, most=1)
        self.length = as_range("length", length, least=0, most=2)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        height, width = shape[-2:]
        side = min(height, width)
        size = (self.strokes, self.vertices)
        turn = generator.uniform(size, 2 / 5 - 2 / 15, 2 / 5 + 2 / 15)
        turn[..., ::2] += 1.0
        angle = turn * math.pi + generator.uniform((self.strokes, 1), 0, 2 * math.pi)
        length = generator.uniform(size, *self.length) * side
        drawn = generator.integers(1, self.vertices + 1, (self.strokes, 1))
        length = length * (torch.arange(self.vertices, device=generator.device) < drawn)
        step = (
            torch.stack((angle.sin(), angle.cos()), -1) * length[..., None]
        )  # (B,strokes,vertices,2) as (y, x)
        start = generator.uniform((self.strokes, 1, 2)) * torch.stack(
            (torch.full_like(angle[0, 0, 0], height), torch.full_like(angle[0, 0, 0], width))
        )
        ends = start + step.cumsum(2)
        starts = torch.cat((start, ends[..., :-1, :]), 2)
        radius = generator.uniform((self.strokes,), *self.width) * (side / 2)
        covered = covered_by_segments(
            starts.flatten(1, 2), ends.flatten(1, 2), _each(radius, self.vertices), (height, width)
        )
        return {"mask": ~covered[:, None]}


def _each(values: Tensor, times: int) -> Tensor:
    return values.repeat_interleave(times, 1)


def covered_by_segments(starts: Tensor, ends: Tensor, radius: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels whose centre is within `radius` of any of S segments: bool (B,H,W).

    `radius` is (B,S), the segments (B,S,2) in (y, x) pixels.
    """
    device = starts.device
    rows = torch.arange(size[0], dtype=torch.float32, device=device).add_(0.5).view(1, -1, 1)
    columns = torch.arange(size[1], dtype=torch.float32, device=device).add_(0.5).view(1, 1, -1)
    covered = torch.zeros(starts.shape[0], *size, dtype=torch.bool, device=device)
    for s in range(starts.shape[1]):
        (y, x), (dy, dx) = _coordinates(starts[:, s]), _coordinates(ends[:, s] - starts[:, s])
        squared = (dy * dy + dx * dx).clamp_(min=1e-6)
        along = ((rows - y) * (dy / squared) + (columns - x) * (dx / squared)).clamp_(0, 1)
        distance = (along * dy).sub_(rows - y).square_()
        distance += along.mul_(dx).sub_(columns - x).square_()
        covered |= distance <= radius[:, s].square().view(-1, 1, 1)
    return covered


def _coordinates(points: Tensor) -> tuple[Tensor, Tensor]:
    return points[:, 0].view(-1, 1, 1), points[:, 1].view(-1, 1, 1)
