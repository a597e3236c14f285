"""Photo files of every common format, decoded to upright uint8 pixels.

Enters: a path. Leaves: uint8 (H,W,C), C = 3 in RGB order or 1. The pixels are those that a viewer would show:
an EXIF orientation is applied, transparency is composited over white, 16-bit values are rounded to 8 bits
(Pillow alone would truncate them), palettes are looked up, CMYK is converted by the file's profile if it has
one. An RGB or grey profile is not applied: the numbers stay those of the file, as in every benchmark of the
field.

Legend: H height, W width, C channels (1 or 3).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restora.photos.decoding import decode, rounded_to_8_bits, upright
from restora.photos.errors import DecodingError, PhotoError
from restora.photos.header import Header, check_file, decoding_errors, look
from restora.photos.listing import list_photos

__all__ = [
    "Channels",
    "Pixels",
    "channel_count",
    "channel_word",
    "list_photos",
    "photo_header",
    "photo_size",
    "read_photo",
]

log = logging.getLogger(__name__)
Channels = int | Literal["rgb", "gray"]
"""A number; `rgb` is 3 and `gray` is 1. Frames of a clip are folded into channels: 3 colour frames are 9."""
Pixels = NDArray[np.uint8]
_COUNT_OF = {"rgb": 3, "gray": 1}

_LUMA = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103], np.float32)
"""MATLAB's rgb2gray (the first row of the inverse of the NTSC matrix), full range, which made the grey
training and test sets of denoising. It is not the Y of YCbCr, which runs from 16 to 235.
"""


def channel_count(channels: Channels) -> int:
    """C of a photo that is read as `channels`. Raises ValueError for an invalid number of channels."""
    count = _COUNT_OF.get(channels, channels) if isinstance(channels, str) else channels
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"data.channels is rgb, gray or a number from 1 on, got {channels!r}")
    return count


def channel_word(channels: Channels) -> str:
    """rgb for 3 channels, gray for 1, else the number; part of the name of a packed store."""
    count = channel_count(channels)
    return next((word for word, known in _COUNT_OF.items() if known == count), str(count))


def photo_header(path: Path) -> Header:
    """The file's header, read without decoding the pixels. Raises `PhotoError`."""
    with _errors_of(path), path.open("rb") as file:
        return look(file, path)


def photo_size(path: Path) -> tuple[int, int]:
    """(H, W) of the upright photo, from the header alone. Raises `PhotoError`."""
    return photo_header(path).shown


def read_photo(path: Path, channels: Channels = "rgb") -> Pixels:
    """The photo as uint8 (H,W,C), C = 3 or 1. Raises `PhotoError` that names the file and what is wrong."""
    count = channel_count(channels)
    if count not in _COUNT_OF.values():
        raise PhotoError(path, f"is read as rgb or gray, not with {count} channels")
    with _errors_of(path):
        held = decode(path.read_bytes(), path)
    if held.header.frames > 1:
        _say_once(path, held.header.frames)
    pixels = rounded_to_8_bits(held.pixels)
    if held.alpha is not None:
        pixels = _over_white(pixels, rounded_to_8_bits(held.alpha)[..., None])
    return _to_channels(upright(pixels, held.header.orientation), count)


@lru_cache
def _say_once(path: Path, frames: int) -> None:
    log.warning("%s has %d frames or pages: the first is taken", path, frames)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turns `DecodingError` into `PhotoError`, which names the file."""
    try:
        check_file(path)
        with decoding_errors():
            yield
    except DecodingError as error:
        raise PhotoError(path, str(error)) from error


def _over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """(H,W,C) composited over white by (H,W,1) alpha, rounded."""
    if (alpha == 255).all():
        return colour
    weight = alpha.astype(np.uint32)
    return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _to_channels(pixels: Pixels, channels: int) -> Pixels:
    """Grey by MATLAB's rgb2gray, or grey repeated three times."""
    if channels == 1 and pixels.shape[2] == 3:
        grey = np.floor(pixels.astype(np.float32) @ _LUMA + np.float32(0.5)).astype(np.uint8)
        return grey[..., None]
    if channels == 3 and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)
