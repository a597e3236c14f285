"""Overlapping tiles of a photo, and the weights that blend them without seams.

Along each axis the tiles start at multiples of `multiple` (so that strides, windows and pixel shuffles are
aligned as in the whole photo) and neighbours share at least `overlap` pixels. In the middle third of an
overlap one tile fades into the other along a raised cosine; in the outer thirds the tile that is near its
artificial border has weight 0. The weights of all tiles sum to 1 at every pixel by construction, so no
normalisation is needed.

Legend: H height, W width, s scale.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Input pixels [start, stop) and the centres of its fades (None at the photo's border).
    """

    start: int
    stop: int
    fade_in: float | None
    fade_out: float | None


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Cover [0, length) with the fewest spans of at most `tile` pixels, all of one size.

    Neighbours share at least `overlap`.

    `tile` is rounded up to `multiple`. Raises ValueError when it leaves no room beside the overlap.
    """
    given, tile = tile, _rounded_up(tile, multiple)
    if length <= tile:
        return [Span(0, length, None, None)]
    check_tile(given, overlap, multiple)
    stride = (tile - overlap) // multiple * multiple
    count = math.ceil((length - tile) / stride) + 1
    stride = min(stride, _rounded_up(math.ceil((length - overlap) / count), multiple))
    size = _rounded_up(max(stride + overlap, length - (count - 1) * stride), multiple)
    starts = [*range(0, (count - 1) * stride, stride), _rounded_up(length - size, multiple)]
    stops = [min(start + size, length) for start in starts]
    centres = [(start + stop) / 2 for start, stop in zip(starts[1:], stops, strict=False)]
    return [Span(*bounds) for bounds in zip(starts, stops, [None, *centres], [*centres, None], strict=True)]


def check_pixels(name: str, value: Any) -> None:
    """Raises ValueError for anything but a whole number of pixels, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of pixels, 0 or more, got {value!r}")


def check_tile(tile: int, overlap: int, multiple: int = 1) -> None:
    """Raises ValueError for a tile (0: the whole photo) that leaves no room beside the overlap."""
    for name, value in (("tile", tile), ("overlap", overlap)):
        check_pixels(name, value)
    whole = _rounded_up(tile, multiple)
    if tile and (whole < 2 * overlap or whole < overlap + multiple):
        least = max(_rounded_up(2 * overlap, multiple), _rounded_up(overlap + multiple, multiple))
        works = f" (the network works in multiples of {multiple})" if multiple > 1 else ""
        raise ValueError(
            f"a tile of {tile} pixels is too small for an overlap of {overlap}{works}: use a tile of {least} "
            f"or more, or an overlap of {max(min(whole // 2, whole - multiple), 0)} or less"
        )


def _rounded_up(length: int, multiple: int) -> int:
    return math.ceil(length / multiple) * multiple


def _rise(first: int, last: int, centre: float, width: float, scale: int) -> Tensor:
    """Raised cosine from 0 to 1 over `width` input pixels around `centre`, at pixels of [first, last)."""
    at = (torch.arange(first * scale, last * scale, dtype=torch.float64) + 0.5) / scale
    step = ((at - centre) / max(width, 1e-6) + 0.5).clamp_(0, 1)
    return step.mul_(math.pi / 2).sin_().square_()


def fade(span: Span, overlap: int, scale: int = 1) -> Tensor:
    """Weights float32 ((stop-start)*s,) of one span; over all spans of one axis they sum to 1."""
    weight = torch.ones((span.stop - span.start) * scale, dtype=torch.float64)
    if span.fade_in is not None:
        weight *= _rise(span.start, span.stop, span.fade_in, overlap / 3, scale)
    if span.fade_out is not None:
        weight *= 1 - _rise(span.start, span.stop, span.fade_out, overlap / 3, scale)
    return weight.float()


@dataclass(frozen=True)
class Tile:
    """One tile of a photo: where it lies in the input, and its weights."""

    rows: Span
    columns: Span

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def cut(self, x: Tensor) -> Tensor:
        """(…,H,W) -> the view of this tile."""
        return x[..., self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    def region(self, y: Tensor, scale: int) -> Tensor:
        """(…,H*s,W*s) -> the view of this tile in the output."""
        rows = slice(self.rows.start * scale, self.rows.stop * scale)
        return y[..., rows, self.columns.start * scale : self.columns.stop * scale]

    def weights(self, overlap: int, scale: int) -> Tensor:
        """float32 (h*s,w*s)."""
        return fade(self.rows, overlap, scale)[:, None] * fade(self.columns, overlap, scale)


def grid(height: int, width: int, *, tile: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Tiles that cover a photo, row by row. `tile` 0 means one tile, whatever the size."""
    check_tile(tile, overlap, multiple)
    rows = spans(height, tile or height, overlap, multiple)
    columns = spans(width, tile or width, overlap, multiple)
    return [Tile(row, column) for row in rows for column in columns]


def batches(
    tiles: list[tuple[int, Tile]], size: Callable[[int, int], int]
) -> Iterator[list[tuple[int, Tile]]]:
    """Groups (sample, tile) jobs of one shape, at most `size(height, width)` at a time.

    The order keeps shapes together.
    """
    by_shape: dict[tuple[int, int], list[tuple[int, Tile]]] = {}
    for job in tiles:
        by_shape.setdefault(job[1].shape, []).append(job)
    for shape, jobs in by_shape.items():
        for first in range(0, len(jobs), size(*shape)):
            yield jobs[first : first + size(*shape)]
