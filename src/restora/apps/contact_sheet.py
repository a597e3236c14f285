"""Pictures in rows and columns with titles, drawn with Pillow and its own font.

Enters: 8-bit pictures of one size with a caption each. Leaves: one picture. Text that is too long is broken
into lines (title) or shortened (captions).
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels: TypeAlias = npt.NDArray[np.uint8]

_PAPER, _INK, _FAINT = (252, 252, 250), (28, 28, 30), (110, 110, 116)
_MARGIN, _GAP = 28, 14
_TITLE, _TEXT, _SMALL = 28, 17, 15
_WIDEST_CAPTION = 200
"""Pixels up to which a caption makes its column wider than the pictures; a longer one is shortened."""


@dataclass(frozen=True)
class Cell:
    """A picture (H,W) or (H,W,3) and the line under it."""

    pixels: Pixels
    caption: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    cells: Sequence[Cell]


def contact_sheet(*, title: str, subtitle: str, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """The sheet; a column is as wide as its pictures or, up to a limit, its captions."""
    widths = [_width([row.cells[i] for row in rows]) for i in range(len(columns))]
    lefts = [_MARGIN + sum(widths[:i]) + i * _GAP for i in range(len(widths))]
    inner = sum(widths) + _GAP * (len(widths) - 1)
    wrapped = _wrapped(subtitle, inner, _font(_SMALL))
    head = _MARGIN + _TITLE + 12 + len(wrapped) * (_SMALL + 6) + 14
    heights = [_TEXT + 10 + max(cell.pixels.shape[0] for cell in row.cells) + _SMALL + 26 for row in rows]
    size = (2 * _MARGIN + inner, head + _TEXT + 16 + sum(heights) + _MARGIN - 16)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)

    draw.text((_MARGIN, _MARGIN), title, _INK, font=_font(_TITLE), anchor="lt")
    for number, line in enumerate(wrapped):
        draw.text(
            (_MARGIN, _MARGIN + _TITLE + 12 + number * (_SMALL + 6)),
            line,
            _FAINT,
            font=_font(_SMALL),
            anchor="lt",
        )
    for left, width, name in zip(lefts, widths, columns, strict=True):
        draw.text(
            (left + width // 2, head), _cut(name, width, _font(_TEXT)), _INK, font=_font(_TEXT), anchor="mt"
        )
    draw.line((_MARGIN, head + _TEXT + 8, size[0] - _MARGIN, head + _TEXT + 8), (215, 215, 212))

    top = head + _TEXT + 16
    for row, height in zip(rows, heights, strict=True):
        draw.text(
            (_MARGIN, top), _cut(row.label, inner, _font(_SMALL)), _FAINT, font=_font(_SMALL), anchor="lt"
        )
        for left, width, cell in zip(lefts, widths, row.cells, strict=True):
            y = top + _TEXT + 10
            sheet.paste(Image.fromarray(cell.pixels), (left + (width - cell.pixels.shape[1]) // 2, y))
            place = (left + width // 2, y + cell.pixels.shape[0] + 8)
            draw.text(
                place, _cut(cell.caption, width, _font(_SMALL)), _FAINT, font=_font(_SMALL), anchor="mt"
            )
        top += height
    return sheet


def encoded(sheet: Image.Image, format_name: str, **options: Any) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    sheet.save(out, format_name, **options)
    return out.getvalue()


def _width(cells: Sequence[Cell]) -> int:
    """The width of a column in pixels."""
    widest = max(_font(_SMALL).getlength(cell.caption) for cell in cells)
    return max(*(cell.pixels.shape[1] for cell in cells), min(math.ceil(widest), _WIDEST_CAPTION))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _cut(text: str, width: int, font: Any) -> str:
    """`text`, shortened by an ellipsis in the middle if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(f"{text[: kept // 2]}…{text[-(kept // 2) :]}") > width:
        kept -= 1
    return f"{text[: kept // 2]}…{text[-(kept // 2) :]}"
