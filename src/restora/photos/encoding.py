"""A `Photo` as the bytes of a file: JPEG, PNG, TIFF, WebP, BMP or PPM, with its metadata.

PNG, TIFF and deep PPM are put together here, PNG and TIFF around zlib's and OpenCV's output, because Pillow
writes none of them with 16-bit colour.

Legend: H height, W width, C channels with alpha (1 to 4).
"""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from restora.photos.decoding import ORIENTATION, PNG_SIGNATURE, Pixels, rounded_to_8_bits, upright
from restora.photos.files import (
    EXIF_HEADER,
    EXIF_HEIGHT,
    EXIF_IFD,
    EXIF_WIDTH,
    GPS_IFD,
    TIFF_STRUCTURE,
    Metadata,
    Photo,
    png_chunks,
)

LOSSY_QUALITY = 95
NO_ALPHA = ("JPEG", "PPM")
DEEP = ("PNG", "TIFF", "PPM")
NO_EXIF = ("BMP", "PPM")
ICC_SPACES = {1: b"GRAY", 3: b"RGB "}


def encode(photo: Photo, format_name: str) -> bytes:
    """The file's bytes. 16-bit pixels are rounded to 8 where the format has no more.

    Raises ValueError when the format cannot hold the photo (transparency in a JPEG, more than 16383 pixels in
    a WebP).
    """
    metadata = _fitting(photo)
    pixels, alpha = photo.pixels, photo.alpha
    if alpha is not None and format_name in NO_ALPHA:
        raise ValueError(f"has transparency, which {format_name} cannot hold: write a PNG, TIFF or WebP")
    if pixels.dtype == np.uint16 and format_name not in DEEP:
        pixels, alpha = rounded_to_8_bits(pixels), None if alpha is None else rounded_to_8_bits(alpha)
    values = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=-1)
    if format_name == "PNG":
        return _png(values, metadata)
    if format_name == "TIFF":
        return _tiff(values, metadata)
    if format_name in NO_EXIF and metadata.exif is not None:
        values = upright(values, _parsed(metadata.exif).get(ORIENTATION, 1))
    if format_name == "PPM" and values.dtype == np.uint16:
        return _ppm_16_bit(values)
    image = Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values)
    out = io.BytesIO()
    try:
        image.save(out, format=format_name, **_options(format_name, metadata))
    except (OSError, ValueError, KeyError) as error:
        height, width = pixels.shape[:2]
        raise ValueError(f"cannot be written as {format_name} ({width}x{height} pixels): {error}") from error
    return out.getvalue()


def _fitting(photo: Photo) -> Metadata:
    """The metadata as it holds for these pixels: a profile of another colour space is left out, sizes are
    updated."""
    held = photo.metadata
    height, width, channels = photo.pixels.shape
    fits = held.icc is not None and held.icc[16:20] == ICC_SPACES.get(channels)
    return Metadata(
        exif=None if held.exif is None else _exif_with_size(held.exif, width, height),
        icc=held.icc if fits else None,
        xmp=held.xmp,
        dpi=held.dpi,
        comment=held.comment,
        png_chunks=[chunk for chunk in held.png_chunks if fits or chunk[0] != b"iCCP"],
        lossless=held.lossless,
    )


def _exif_with_size(exif: bytes, width: int, height: int) -> bytes:
    """The EXIF block, untouched unless it records another size."""
    parsed = _parsed(exif)
    directory = parsed.get_ifd(EXIF_IFD)
    recorded = directory.get(EXIF_WIDTH), directory.get(EXIF_HEIGHT)
    if recorded in ((None, None), (width, height)):
        return exif
    directory[EXIF_WIDTH], directory[EXIF_HEIGHT] = width, height
    return parsed.tobytes().removeprefix(EXIF_HEADER)


def _parsed(exif: bytes) -> Image.Exif:
    parsed = Image.Exif()
    parsed.load(EXIF_HEADER + exif)
    return parsed


def _options(format_name: str, metadata: Metadata) -> dict[str, Any]:
    """Pillow's save options for the formats that it writes here."""
    held: dict[str, Any] = {}
    if format_name in ("JPEG", "WEBP"):
        named = {"exif": metadata.exif, "icc_profile": metadata.icc, "xmp": metadata.xmp}
        held = {name: value for name, value in named.items() if value is not None}
        if metadata.exif is not None:
            held["exif"] = EXIF_HEADER + metadata.exif
    if format_name == "JPEG":
        held |= {"quality": LOSSY_QUALITY, "subsampling": 0}
        if metadata.comment:
            held["comment"] = metadata.comment
    elif format_name == "WEBP":
        held |= {
            "lossless": metadata.lossless,
            "quality": 80 if metadata.lossless else LOSSY_QUALITY,
            "exact": True,
        }
    if format_name in ("JPEG", "BMP") and metadata.dpi is not None:
        held["dpi"] = metadata.dpi
    return held


def _png(values: Pixels, metadata: Metadata) -> bytes:
    """(H,W,C) -> PNG file, with the source's own chunks where it was a PNG, else with chunks made from its
    metadata."""
    if values.dtype == np.uint8:
        out = io.BytesIO()
        Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values).save(out, format="PNG")
        file = out.getvalue()
    else:
        file = _png_16_bit(values)
    header, *rest = png_chunks(file)
    extra = list(metadata.png_chunks)
    if not extra:
        extra = _png_chunks_from(metadata)
    if metadata.exif is not None:
        extra.append((b"eXIf", metadata.exif))
    return PNG_SIGNATURE + b"".join(_png_chunk(*chunk) for chunk in [header, *extra, *rest])


def _png_16_bit(values: Pixels) -> bytes:
    height, width, channels = values.shape
    if channels != 2:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        done, file = cv2.imencode(".png", values[..., order])
        if not done:
            raise ValueError(f"{width}x{height} pixels cannot be written as a 16-bit PNG")
        return file.tobytes()
    # OpenCV has no grey with alpha: rows of big-endian numbers, each with filter 2 (difference to the row
    # above)
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 6)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_chunks_from(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Profile, resolution and XMP of a photo that was not a PNG."""
    chunks = []
    if metadata.icc is not None:
        chunks.append((b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc)))
    if metadata.dpi is not None:
        x, y = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + metadata.xmp))
    return chunks


def _ppm_16_bit(values: Pixels) -> bytes:
    height, width, channels = values.shape
    kind = "P5" if channels == 1 else "P6"
    return f"{kind}\n{width} {height}\n65535\n".encode() + values.astype(">u2").tobytes()


def _tiff(values: Pixels, metadata: Metadata) -> bytes:
    """(H,W,C) -> TIFF file of one deflated strip with horizontal differencing."""
    height, width, channels = values.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()  # little-endian
    differences = np.concatenate([values[:, :1], values[:, 1:] - values[:, :-1]], axis=1)
    strip = zlib.compress(differences.astype(values.dtype.newbyteorder("<")).tobytes(), 6)
    _describe(tags, metadata)
    tags[256], tags[257] = width, height
    tags[258] = (values.dtype.itemsize * 8,) * channels
    tags[259], tags[317] = 8, 2  # deflate, horizontal differencing
    tags[262] = 1 if channels < 3 else 2  # black is zero, or RGB
    tags[273], tags[277], tags[278], tags[279] = 0, channels, height, len(strip)
    tags[284] = 1  # channels side by side
    if channels in (2, 4):
        tags[338] = 2  # the last channel is alpha, not multiplied in
    out = io.BytesIO()
    tags.save(out)
    out.write(strip)
    return out.getvalue()


def _describe(tags: TiffImagePlugin.ImageFileDirectory_v2, metadata: Metadata) -> None:
    """Put the descriptive tags, the profile and the XMP block into a TIFF directory."""
    if metadata.exif is not None:
        parsed = _parsed(metadata.exif)
        for tag, value in parsed.items():
            if tag not in TIFF_STRUCTURE and tag not in (EXIF_IFD, GPS_IFD):
                tags[tag] = value
        for tag in (EXIF_IFD, GPS_IFD):
            if directory := dict(parsed.get_ifd(tag)):
                tags[tag] = directory
    if metadata.dpi is not None:
        tags[282], tags[283], tags[296] = metadata.dpi[0], metadata.dpi[1], 2  # pixels per inch
    for tag, block, kind in ((34675, metadata.icc, 7), (700, metadata.xmp, 1)):
        if block is not None:
            tags.tagtype[tag] = kind
            tags[tag] = block
