"""The pixels that a photo file holds, for training and for restoring alike.

Enters: a file's bytes. Leaves: grey or RGB, 8 or 16 bits, alpha apart, as stored (an EXIF orientation is not
applied). What surprises: Pillow decodes, but has no 16-bit colour, which OpenCV decodes; palettes become RGB,
CMYK and Lab become sRGB, through the file's own profile where it has one; both libraries turn TIFF files
upright themselves.

Legend: H height, W width, C channels (1 or 3).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from restora.photos.errors import DecodingError

Depth = TypeVar("Depth", np.uint8, np.uint16)
Pixels = NDArray[np.uint8] | NDArray[np.uint16]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
"""The EXIF tag of how a photo lies in its file."""
QUARTER_TURNED = (5, 6, 7, 8)
_PNG_COLOUR_TYPE, _PNG_GREY_WITH_ALPHA = 25, 4
_TIFF_BITS, _TIFF_SAMPLE_FORMAT, _TIFF_FLOAT = 258, 339, 3


@dataclass(frozen=True)
class Decoded:
    """`pixels` (H,W,C) uint8 or uint16, `alpha` (H,W) of the same type or None."""

    pixels: Pixels
    alpha: Pixels | None
    icc: bytes | None
    """The profile that holds for `pixels`."""
    image: Image.Image
    """As Pillow has loaded it, for what else it says about itself."""


@contextmanager
def decoding_errors() -> Iterator[None]:
    """What decoders raise on broken files, as `DecodingError`."""
    try:
        yield
    except DecodingError:
        raise
    except UnidentifiedImageError as error:
        raise DecodingError("is not a photo in a known format") from error
    except Image.DecompressionBombError as error:
        raise DecodingError(f"is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise DecodingError(f"cannot be decoded: {error}") from error


def decode(data: bytes) -> Decoded:
    """Raises `DecodingError` that says why the file cannot be read."""
    with decoding_errors():
        image = Image.open(io.BytesIO(data))
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with previews behind it
            raise DecodingError(f"holds {frames} pages or frames: split it into single photos first")
        deep = _is_16_bit(image)  # before load, which forgets how the pixels are stored
        image.load()
        if deep:
            pixels, alpha = _decode_16_bit(data, image)
            return Decoded(pixels, alpha, image.info.get("icc_profile"), image)
        converted, icc = _to_srgb(image)
        return Decoded(*_decode_8_bit(converted), icc, image)


def rounded_to_8_bits(values: Pixels) -> NDArray[np.uint8]:
    """16 bits to 8, to the nearest; 8 bits as they are."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def upright(pixels: NDArray[Depth], orientation: int) -> NDArray[Depth]:
    """EXIF orientation 1 to 8 applied to (H,W,C)."""
    if orientation in QUARTER_TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _is_16_bit(image: Image.Image) -> bool:
    """Whether a channel has 16 bits. Raises `DecodingError` for deeper or floating-point files."""
    too_deep = "has more than 16 bits per channel: convert it to 8 or 16 bits first"
    tiles = getattr(image, "tile", None)  # how the file stores the pixels: (codec, extents, offset, raw mode)
    stored = tiles[0][3] if tiles else ""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_TIFF_BITS, (1,)))
        if bits > 16 or _TIFF_FLOAT in tags.get(_TIFF_SAMPLE_FORMAT, (1,)):
            raise DecodingError(too_deep)
        return bits > 8
    if image.format == "PPM" and image.mode != "F":  # the largest value is the file's own choice
        return image.mode == "I" or stored == ("RGB", 65535)
    if image.mode in ("I", "F"):
        raise DecodingError(too_deep)
    return image.mode.startswith("I;16") or (isinstance(stored, str) and stored.endswith(";16B"))


def _decode_16_bit(data: bytes, image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """(H,W,C) uint16 and alpha."""
    import cv2

    if image.mode == "I":  # a PGM, which Pillow scales to 16 bits whatever its largest value
        return np.asarray(image).astype(np.uint16)[..., None], None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DecodingError(f"cannot be decoded: {error}") from error
    if decoded is None or decoded.dtype != np.uint16:
        raise DecodingError(
            "is a 16-bit photo of a kind that cannot be read: convert it to 16-bit grey or RGB first"
        )
    values = np.atleast_3d(decoded).astype(np.uint16, copy=False)
    channels = values.shape[2]
    alpha = values[..., -1] if channels in (2, 4) else None
    grey = channels < 3 or (image.format == "PNG" and data[_PNG_COLOUR_TYPE] == _PNG_GREY_WITH_ALPHA)
    pixels = values[..., :1] if grey else values[..., 2::-1]
    key = image.info.get("transparency")
    if alpha is None and key is not None:
        alpha = np.where((pixels == np.asarray(key)).all(axis=-1), 0, 65535).astype(np.uint16)
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)


def _decode_8_bit(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Any mode of 8 bits or fewer, CMYK and Lab apart, as (H,W,C) uint8 and alpha."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        values = np.asarray(image.convert("LA" if grey else "RGBA"))
        return values[..., :-1], values[..., -1]
    return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"))), None


def _to_srgb(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """CMYK or Lab as sRGB, by the file's profile or by Pillow's own formula, and the profile that then
    holds; other modes as they are."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("CMYK", "LAB"):
        return image, profile
    srgb = ImageCms.createProfile("sRGB")
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB"), None
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB"), None
    assert converted is not None
    return converted, ImageCms.ImageCmsProfile(srgb).tobytes()
