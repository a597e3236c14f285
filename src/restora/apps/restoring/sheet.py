"""A photo before and after restoration, side by side, as one JPEG that fits a screen."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from restora.apps.contact_sheet import Cell, Row, contact_sheet, encoded
from restora.photos.decoding import rounded_to_8_bits
from restora.photos.files import Photo

LONGEST_SIDE = 1600
"""Pixels, of each of the two pictures."""
SHORTEST_SIDE = 256
_PAPER, _TITLE = 252, 32


def before_and_after(before: Photo, after: Photo, name: str) -> bytes:
    """The sheet as JPEG. Both pictures have the same size; small photos are enlarged, large ones reduced."""
    size = after.upright().pixels.shape
    factor = min(LONGEST_SIDE / max(size[:2]), 1) * max(SHORTEST_SIDE / max(size[:2]), 1)
    height, width = (max(round(side * factor), 1) for side in size[:2])
    cells = [Cell(_shown(photo, width, height), _caption(photo)) for photo in (before, after)]
    title = name if len(name) <= _TITLE else f"…{name[1 - _TITLE :]}"
    sheet = contact_sheet(title=title, subtitle="", columns=["before", "after"], rows=[Row("", cells)])
    return encoded(sheet, "JPEG", quality=92, subsampling=0)


def _shown(photo: Photo, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 (height,width,3), upright, transparent pixels over the sheet's background colour."""
    photo = photo.upright()
    colours = rounded_to_8_bits(photo.pixels)
    image = Image.fromarray(np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours)
    if photo.alpha is not None:
        ground = Image.new("RGB", image.size, (_PAPER, _PAPER, _PAPER))
        image = Image.composite(image, ground, Image.fromarray(rounded_to_8_bits(photo.alpha)))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _caption(photo: Photo) -> str:
    height, width = photo.upright().pixels.shape[:2]
    return f"{width} x {height} pixels"
