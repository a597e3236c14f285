"""Decodes the pixels of a photo file, for training and for restoring alike.

Enters: a file's bytes. Leaves: grey or RGB, 8 or 16 bits, alpha apart, as stored (an EXIF orientation is not
applied). Note: Pillow decodes, but has no 16-bit colour: OpenCV decodes that of PNG, `tiff.py` and
`deep_pnm.py` that of TIFF and PPM. Palettes become RGB; CMYK (through the file's own profile if it has one)
and Lab become sRGB; TIFF, HEIC and raw files are turned upright. Of an animation or of several pages only the
first is decoded.

Legend: H height, W width, C channels (1 or 3).
"""

import io
import os
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restora.photos import deep_pnm, extra_formats, tiff
from restora.photos.errors import DecodingError
from restora.photos.header import QUARTER_TURNED, Header, decoding_errors, look, opened

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
AnyPixels = TypeVar("AnyPixels", NDArray[np.uint8], NDArray[np.uint16], Pixels)

_CONVERTED = {"CMYK": "CMYK colours (they became sRGB)", "LAB": "Lab colours (they became sRGB)"}
_PNG_BITS, _PNG_COLOUR_TYPE, _PNG_GREY_WITH_ALPHA = 24, 25, 4


@dataclass(frozen=True)
class Decoded:
    """`pixels` (H,W,C) uint8 or uint16, `alpha` (H,W) of the same type or None."""

    pixels: Pixels
    alpha: Pixels | None
    header: Header
    icc: bytes | None = None
    """The profile that holds for `pixels`."""
    info: dict[Any, Any] = field(default_factory=dict)
    """What else Pillow found."""
    converted: str = ""
    """The colour space of the file, in words, if `pixels` were converted from it."""


def decode(data: bytes, name: str | os.PathLike[str] = "", *, limit: int | None = None) -> Decoded:
    """Raises `DecodingError` that says why the file cannot be read. `limit`: see `header.look`."""
    header = look(data, name, limit=limit)
    with decoding_errors():
        if header.format_name == "RAW":
            return Decoded(extra_formats.decode_raw(data), None, header)
        if header.page is not None and tiff.is_decoded_here(header.page):
            return _decode_tiff(data, header, header.page)
        with opened(io.BytesIO(data)) as image:
            if header.bits > 8:
                if image.format == "PNG":
                    image.load()  # reads the chunks after the pixels, and raises if they are broken
                pixels, alpha = _decode_16_bit(data, image)
                return Decoded(pixels, alpha, header, image.info.get("icc_profile"), image.info)
            image.load()
            _scale_transparency(data, image)
            converted, icc = _to_srgb(image)
            others = _CONVERTED.get(image.mode, "")
            return Decoded(*_decode_8_bit(converted), header, icc, image.info, others)


def rounded_to_8_bits(values: Pixels) -> NDArray[np.uint8]:
    """16 bits to 8, to the nearest; 8 bits as they are."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def upright(pixels: AnyPixels, orientation: int) -> AnyPixels:
    """EXIF orientation 1 to 8 applied to (H,W,C) or (H,W), in contiguous memory."""
    if orientation in QUARTER_TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels.copy(order="C")


def _decode_tiff(data: bytes, header: Header, page: tiff.Page) -> Decoded:
    pixels, alpha = tiff.decode(data, page)
    profile = page.tags.get(34675)
    return Decoded(
        upright(pixels, page.orientation),
        None if alpha is None else upright(alpha, page.orientation),
        header,
        profile if isinstance(profile, bytes) else None,
    )


def _decode_16_bit(data: bytes, image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """(H,W,C) uint16 and alpha of a PNG, PPM or HEIC."""
    if image.format == "PPM":
        return deep_pnm.decode(data), None
    if image.format == "HEIF":
        values = extra_formats.deep_heif(data)
        colours = 3 if values.shape[2] >= 3 else 1
        return values[..., :colours], values[..., colours] if values.shape[2] in (2, 4) else None
    import cv2

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


def _scale_transparency(data: bytes, image: Image.Image) -> None:
    """Scales the transparent grey of a PNG of 2 or 4 bits to 8, as Pillow scales the pixels alone."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2 ** data[_PNG_BITS] - 1)


def _decode_8_bit(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Any mode of 8 bits or fewer, CMYK and Lab apart, as (H,W,C) uint8 and alpha."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        values = np.asarray(image.convert("LA" if grey else "RGBA"))
        return values[..., :-1], values[..., -1]
    return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"))), None


def _to_srgb(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """CMYK or Lab as sRGB, and the profile that then holds; other modes as they are.

    CMYK is converted by the file's profile, or without one by Pillow's own formula.
    """
    profile = image.info.get("icc_profile")
    if image.mode not in _CONVERTED:
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
