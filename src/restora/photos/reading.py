"""Photo files of every common kind, decoded to the same thing: uint8 rows of pixels, upright.

Enters: a path. Leaves: uint8 (H,W,C), C = 3 in RGB order or 1. What a viewer would show is what comes out: an
EXIF orientation is applied, transparency is laid over white, 16-bit values are rounded to 8 bits (Pillow
alone would cut them off), palettes are looked up, CMYK goes through its profile where the file has one. An
RGB or grey profile is left alone: the numbers stay those of the file, as in every benchmark of the field.

Legend: H height, W width, C channels (1 or 3).
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restora.photos.decoding import (
    ORIENTATION,
    PNG_SIGNATURE,
    QUARTER_TURNED,
    decode,
    decoding_errors,
    rounded_to_8_bits,
    upright,
)
from restora.photos.errors import DecodingError, PhotoError

Channels = Literal["rgb", "gray"]
Pixels = NDArray[np.uint8]

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm"))
_LUMA = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103], np.float32)
"""MATLAB's rgb2gray (the first row of the inverse of the NTSC matrix), full range: what the grey training and
test sets of denoising were made with. It is not the Y of YCbCr, which runs from 16 to 235.
"""


def list_photos(folder: Path) -> list[Path]:
    """All photo files below `folder`, in a fixed order; hidden files and folders are left out."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in files if is_photo(name)]
    return sorted(found)


def is_photo(name: str) -> bool:
    """Whether a file of this name would be read as a photo."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def channel_count(channels: Channels) -> int:
    """C of a photo that is read as `channels`."""
    return 1 if channels == "gray" else 3


def photo_size(path: Path) -> tuple[int, int]:
    """(H, W) of the upright photo, from the header alone. Raises `PhotoError`."""
    with _errors_of(path), Image.open(path) as image:
        width, height = image.size
        turned = _orientation(image, pixels_last=_pixels_last(path)) in QUARTER_TURNED
    return (width, height) if turned else (height, width)


def read_photo(path: Path, channels: Channels = "rgb") -> Pixels:
    """The photo as uint8 (H,W,C). Raises `PhotoError` that names the file and what is wrong with it."""
    with _errors_of(path):
        held = decode(path.read_bytes())
    pixels = rounded_to_8_bits(held.pixels)
    if held.alpha is not None:
        pixels = _over_white(pixels, rounded_to_8_bits(held.alpha)[..., None])
    return _to_channels(upright(pixels, _orientation(held.image)), channels)


def _orientation(image: Image.Image, *, pixels_last: bool = False) -> int:
    """How decoded pixels are still to be turned; Pillow and OpenCV turn TIFF files upright themselves.

    With `pixels_last` a PNG is asked without decoding it, which Pillow does for what may stand behind the
    pixels.
    """
    if image.format == "TIFF":
        return 1
    exif = Image.Image.getexif(image) if pixels_last else image.getexif()
    return int(exif.get(ORIENTATION, 1))


def _pixels_last(path: Path) -> bool:
    """Whether this is a PNG file in which nothing follows the pixels."""
    with path.open("rb") as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            return False
        kinds = []
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            kinds.append(kind)
            file.seek(length + 4, os.SEEK_CUR)  # its body and checksum
    return b"IDAT" in kinds and set(kinds[kinds.index(b"IDAT") :]) <= {b"IDAT", b"IEND"}


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """What is wrong with a file, as `PhotoError`."""
    if not path.exists():
        raise PhotoError(path, "does not exist")
    if path.stat().st_size == 0:
        raise PhotoError(path, "is empty")
    try:
        with decoding_errors():
            yield
    except DecodingError as error:
        raise PhotoError(path, str(error)) from error


def _over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """(H,W,C) seen through (H,W,1) alpha on a white ground, rounded."""
    if (alpha == 255).all():
        return colour
    weight = alpha.astype(np.uint32)
    return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _to_channels(pixels: Pixels, channels: Channels) -> Pixels:
    """Grey by MATLAB's rgb2gray, or grey repeated three times."""
    if channels == "gray" and pixels.shape[2] == 3:
        grey = np.floor(pixels.astype(np.float32) @ _LUMA + np.float32(0.5)).astype(np.uint8)
        return grey[..., None]
    if channels == "rgb" and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)
