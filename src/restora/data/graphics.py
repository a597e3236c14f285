"""Drawings in training crops: text, lines, shapes and patterns, as on screenshots, charts and scanned pages.

A network that has seen nothing but photos takes thin lines and hard edges for artefacts and removes them.

Legend: h and w sides of a crop, C channels (1 or 3).
"""

from typing import Any

import albumentations
import cv2
import numpy as np

from restora.photos.reading import Pixels

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL,
)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-+=()%/&?"
_LARGEST_CELL = 16
"""Pixels of a field of a pattern."""


class Graphics(albumentations.ImageOnlyTransform):
    """Draws on a crop, or puts a drawing in its place.

    `alone` is the share of drawings without the photo, `shapes` the smallest and the largest number of texts,
    lines, rectangles, ellipses and patterns of one drawing, and `p` the share of crops that get one. Works on
    uint8 (h,w,C); a degraded partner gets the same drawing.

        data.transforms=[{_target_: restora.data.graphics.Graphics, p: 0.2}]
    """

    class InitSchema(albumentations.ImageOnlyTransform.InitSchema):
        alone: float
        shapes: tuple[int, int]

    def __init__(self, *, alone: float = 0.5, shapes: tuple[int, int] = (3, 12), p: float = 0.2) -> None:
        super().__init__(p=p)
        if not 0 <= alone <= 1:
            raise ValueError(f"alone is a share from 0 to 1, got {alone}")
        if not 0 < shapes[0] <= shapes[1]:
            raise ValueError(f"shapes are two numbers from 1 up, the smaller first, got {[*shapes]}")
        self.alone, self.shapes = alone, shapes

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002 -- albumentations passes it by name
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """The drawing for the size of the photo, and where it covers the photo."""
        generator = np.random.default_rng(int(self.random_generator.integers(1 << 32)))
        height, width, channels = np.atleast_3d(data["image"]).shape
        drawing = np.zeros((height, width, channels), np.uint8)
        covered = np.zeros((height, width, channels), np.uint8)
        if generator.random() < self.alone:
            drawing[:] = _colour(generator, channels)
            covered[:] = 1
        for _ in range(generator.integers(*self.shapes, endpoint=True)):
            _DRAWN[generator.integers(len(_DRAWN))](generator, drawing, covered)
        return {"drawing": drawing, "covered": covered}

    def apply(self, img: Pixels, drawing: Pixels, covered: Pixels, **_: Any) -> Pixels:
        """(h,w,C) with the drawing over it."""
        size = img.shape[1::-1]
        if drawing.shape[:2] != img.shape[:2]:  # a degraded partner is smaller
            smaller = [cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in (drawing, covered)]
            drawing, covered = (x.astype(np.uint8, copy=False) for x in smaller)
        drawing, covered = drawing.reshape(img.shape), covered.reshape(img.shape)
        return np.where(covered > 0, drawing, img)


def _colour(generator: np.random.Generator, channels: int) -> list[int]:
    """Any colour, or as often one without hue, of which half are black or white."""
    kind = generator.integers(4)
    if kind < 2:
        return [int(level) for level in generator.integers(0, 256, channels)]
    level = generator.integers(0, 256) if kind == 2 else 255 * generator.integers(2)
    return [int(level)] * channels


def _place(generator: np.random.Generator, drawing: Pixels, *, beyond: float = 0.2) -> tuple[int, int]:
    """A point (x, y) of the drawing or near it."""
    height, width = drawing.shape[:2]
    x, y = generator.uniform(-beyond, 1 + beyond, 2) * (width, height)
    return int(x), int(y)


def _line(generator: np.random.Generator, drawing: Pixels, covered: Pixels) -> None:
    thickness = int(generator.integers(1, 5))
    ends = _place(generator, drawing), _place(generator, drawing)
    cv2.line(drawing, *ends, _colour(generator, drawing.shape[2]), thickness)
    cv2.line(covered, *ends, (1, 1, 1), thickness)


def _rectangle(generator: np.random.Generator, drawing: Pixels, covered: Pixels) -> None:
    thickness = cv2.FILLED if generator.random() < 0.6 else int(generator.integers(1, 4))
    corners = _place(generator, drawing), _place(generator, drawing)
    cv2.rectangle(drawing, *corners, _colour(generator, drawing.shape[2]), thickness)
    cv2.rectangle(covered, *corners, (1, 1, 1), thickness)


def _ellipse(generator: np.random.Generator, drawing: Pixels, covered: Pixels) -> None:
    thickness = cv2.FILLED if generator.random() < 0.6 else int(generator.integers(1, 4))
    axes = [int(axis) for axis in generator.integers(2, max(3, max(drawing.shape[:2]) // 2), 2)]
    where = (_place(generator, drawing), axes, float(generator.uniform(0, 180)), 0, 360)
    cv2.ellipse(drawing, *where, _colour(generator, drawing.shape[2]), thickness)
    cv2.ellipse(covered, *where, (1, 1, 1), thickness)


def _text(generator: np.random.Generator, drawing: Pixels, covered: Pixels) -> None:
    """One to five lines of letters, smoothed where they have a ground of their own."""
    width = drawing.shape[1]
    font, scale = _FONTS[generator.integers(len(_FONTS))], float(generator.uniform(0.3, 1.0))
    thickness, colour = int(generator.integers(1, 3)), _colour(generator, drawing.shape[2])
    left, top = _place(generator, drawing)
    step = int(30 * scale) + 2
    lines = int(generator.integers(1, 6))
    on_ground = generator.random() < 0.7
    if on_ground:
        corners = (left - 3, top - step), (left + width, top + step * (lines - 1) + step // 2)
        cv2.rectangle(drawing, *corners, _colour(generator, drawing.shape[2]), cv2.FILLED)
        cv2.rectangle(covered, *corners, (1, 1, 1), cv2.FILLED)
    for number in range(lines):
        chosen = generator.integers(0, len(_LETTERS) + 12, 12)
        line = "".join(_LETTERS[i] if i < len(_LETTERS) else " " for i in chosen)
        where = (left, top + number * step)
        smoothing = cv2.LINE_AA if on_ground else cv2.LINE_8
        cv2.putText(drawing, line, where, font, scale, colour, thickness, smoothing)
        cv2.putText(covered, line, where, font, scale, (1, 1, 1), thickness, cv2.LINE_8)


def _pattern(generator: np.random.Generator, drawing: Pixels, covered: Pixels) -> None:
    """A part of the drawing in fields or stripes of two colours, with hard edges or blended as a wave."""
    height, width, channels = drawing.shape
    (x0, y0), (x1, y1) = (_place(generator, drawing) for _ in range(2))
    rows = slice(max(min(y0, y1), 0), max(y0, y1, 0))
    columns = slice(max(min(x0, x1), 0), max(x0, x1, 0))
    y, x = np.mgrid[:height, :width][:, rows, columns]
    cell = float(generator.uniform(1, _LARGEST_CELL))
    kind = generator.integers(3)
    if kind == 0:
        cell = max(round(cell), 1)
        share = (x // cell + y // cell) % 2.0
    else:
        angle = generator.choice([0.0, np.pi / 2, generator.uniform(0, np.pi)])
        share = 0.5 + 0.5 * np.cos((x * np.cos(angle) + y * np.sin(angle)) * np.pi / cell)
        share = np.round(share) if kind == 1 else share
    first, second = (np.array(_colour(generator, channels), float) for _ in range(2))
    drawing[rows, columns] = np.round(first + (second - first) * share[..., None]).astype(np.uint8)
    covered[rows, columns] = 1


_DRAWN = (_line, _line, _rectangle, _ellipse, _text, _text, _pattern)
"""Lines and texts are drawn twice as often as the others."""
