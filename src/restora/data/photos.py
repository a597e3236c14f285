"""Photo files of every common kind, decoded to the same thing: uint8 rows of pixels, upright.

Enters: a path. Leaves: uint8 (H,W,C), C = 3 in RGB order or 1. What a viewer would show is what comes out: an
EXIF orientation is applied, transparency is laid over white, 16-bit values are rounded to 8 bits (Pillow
alone would cut them off), palettes are looked up, CMYK goes through its profile where the file has one. An
RGB or grey profile is left alone: the numbers stay those of the file, as in every benchmark of the field.

Legend: H height, W width, C channels (1 or 3).
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from restora.data.errors import PhotoError

Channels = Literal["rgb", "gray"]
Pixels = NDArray[np.uint8]

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm"))
_ORIENTATION = 0x0112
_QUARTER_TURNED = (5, 6, 7, 8)
_TIFF_BITS, _TIFF_SAMPLE_FORMAT, _TIFF_FLOAT = 258, 339, 3
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
        turned = _orientation(image) in _QUARTER_TURNED
    return (width, height) if turned else (height, width)


def read_photo(path: Path, channels: Channels = "rgb") -> Pixels:
    """The photo as uint8 (H,W,C). Raises `PhotoError` that names the file and what is wrong with it."""
    with _errors_of(path):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with previews behind it
                raise PhotoError(path, f"holds {frames} pages or frames: split it first")
            deep = _is_16_bit(image, path)
            orientation = _orientation(image)
            image.load()
            if deep:
                pixels = _upright(_decode_16_bit(data, path), orientation)
            else:
                pixels = _decode_8_bit(ImageOps.exif_transpose(image))
    return _to_channels(pixels, channels)


def _orientation(image: Image.Image) -> int:
    """How decoded pixels are still to be turned; Pillow and OpenCV turn TIFF files upright themselves."""
    return 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """What decoders raise on broken files, as `PhotoError`."""
    try:
        yield
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(path, "does not exist") from error
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise PhotoError(path, "is empty" if empty else "is not a photo in a known format") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise PhotoError(path, f"cannot be decoded: {error}") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(path, f"is too large: {error}") from error


def _is_16_bit(image: Any, path: Path) -> bool:
    """Whether a channel has 16 bits; asked before loading, which forgets how the pixels are stored."""
    too_deep = "has more than 16 bits per channel: convert it to 8 or 16 bits"
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(_TIFF_BITS, (1,)))
        if bits > 16 or _TIFF_FLOAT in image.tag_v2.get(_TIFF_SAMPLE_FORMAT, (1,)):
            raise PhotoError(path, too_deep)
        return bits > 8
    if image.format == "PPM":
        return image.mode == "I"  # 16-bit grey; Pillow scales 16-bit colour to 8 bits, rounding as it should
    if image.mode in ("I", "F"):
        raise PhotoError(path, too_deep)
    raw_mode = image.tile[0][3] if image.tile else ""
    return image.mode.startswith("I;16") or (isinstance(raw_mode, str) and raw_mode.endswith(";16B"))


def _decode_16_bit(data: bytes, path: Path) -> Pixels:
    """Pillow has no 16-bit colour, so OpenCV decodes; the values are rounded to 8 bits."""
    import cv2

    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PhotoError(path, f"cannot be decoded: {error}") from error
    if decoded is None or decoded.dtype != np.uint16:
        raise PhotoError(path, "is a 16-bit photo of a kind that cannot be read: convert it to grey or RGB")
    values = np.atleast_3d(((decoded.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    if values.shape[2] >= 3:  # BGR or BGRA
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    if values.shape[2] in (2, 4):
        values = _over_white(values[..., :-1], values[..., -1:])
    return values


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """EXIF orientation 1 to 8 applied to (H,W,C)."""
    if orientation in _QUARTER_TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _decode_8_bit(image: Image.Image) -> Pixels:
    """Any mode of 8 bits or fewer as (H,W,1) or (H,W,3)."""
    if image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        values = np.asarray(image.convert("LA" if grey else "RGBA"))
        return _over_white(values[..., :-1], values[..., -1:])
    return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB")))


def _to_srgb(image: Image.Image) -> Image.Image:
    """CMYK or Lab as sRGB: by the file's profile, or by Pillow's own formula where it has none."""
    profile = image.info.get("icc_profile")
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert converted is not None
    return converted


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
