"""The lost pixels of a photo, from `--mask`: a picture, a folder of pictures, or a colour."""

from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from restora.apps.restoring.plan import Job
from restora.photos.decoding import rounded_to_8_bits
from restora.photos.encoding import is_lossy
from restora.photos.files import FORMATS, Photo, read_photo

NEAR = 8
"""Levels by which a channel may differ from the colour where a file is lossless."""
SEED, NEAR_IN_JPEG = 32, 112
"""The same in a lossy file, which stores colours at half the size: a mark has a pixel within the first number
of levels, and connected to it all within the second."""
GROWN = 3
"""Pixels by which marks in a lossy file are grown: their edges are blends with the photo."""


class Masks:
    """The masks of the photos, from the value of `--mask`.

    The value is one file for all photos, a folder with the same tree, or the colour in which the lost pixels
    are painted, as #RRGGBB or by its English name.
    """

    def __init__(self, word: str) -> None:
        self.path, self.colour = Path(word), None
        if self.path.exists():
            return
        try:
            self.colour = ImageColor.getrgb(word)[:3]
        except ValueError as error:
            raise ValueError(
                f"--mask {word}: no such picture or folder, and not a colour (such as #ff00ff or magenta)"
            ) from error

    def read(self, job: Job, photo: Photo) -> Photo:
        """The mask, white where the photo is lost. Raises ValueError if the photo has none.

        It is oriented like the photo's stored pixels, or like the upright photo if only that has its size.
        """
        if self.colour is not None:
            lossy = is_lossy(photo.metadata, photo.format_name, quality=None)
            return _painted(photo, self.colour, lossy=lossy)
        mask = read_photo(self._file(job))
        sizes = [held.pixels.shape[:2] for held in (mask, photo, mask.upright(), photo.upright())]
        return mask.turned_like(photo) if sizes[0] != sizes[1] and sizes[2] == sizes[3] else mask

    def _file(self, job: Job) -> Path:
        if self.path.is_file():
            return self.path
        wanted = self.path / job.name
        for candidate in (wanted, *(wanted.with_suffix(suffix) for suffix in FORMATS)):
            if candidate.is_file():
                return candidate
        raise ValueError(f"has no mask {wanted.with_suffix('.png')}")


def _painted(photo: Photo, colour: tuple[int, ...], *, lossy: bool) -> Photo:
    """A mask, white where all channels are near the colour, and around that in a `lossy` photo.

    Raises ValueError if no pixel is near it.
    """
    pixels = rounded_to_8_bits(photo.pixels).astype(np.int16)  # (H,W,C)
    away = np.abs(pixels - np.array(colour, dtype=np.int16)).max(axis=2, keepdims=True)  # (H,W,1)
    lost = away <= (SEED if lossy else NEAR)
    if not lost.any():
        raise ValueError(f"has no pixel of the colour #{bytes(colour).hex()} that marks what is lost")
    if lossy:
        _, marks = cv2.connectedComponents((away <= NEAR_IN_JPEG).astype(np.uint8))
        marked = np.isin(marks, np.unique(marks[lost[..., 0]])).astype(np.uint8)
        lost = cv2.dilate(marked, np.ones((2 * GROWN + 1,) * 2, np.uint8))[..., None] > 0
    return Photo(np.where(lost, np.uint8(255), np.uint8(0)), None)
