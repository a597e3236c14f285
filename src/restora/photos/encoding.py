"""A `Photo` as the bytes of a file: JPEG, PNG, TIFF, WebP, AVIF, BMP or PPM, with its metadata.

PNG, TIFF and 16-bit PPM files are assembled here, PNG and TIFF around zlib's and OpenCV's output, because
Pillow writes none of them with 16-bit colour.

Legend: H height, W width, C channels with alpha (1 to 4).
"""

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from restora.photos import blocks, exif
from restora.photos.blocks import Chunk, png_chunk
from restora.photos.decoding import Pixels, rounded_to_8_bits
from restora.photos.files import Photo
from restora.photos.header import PNG_SIGNATURE
from restora.photos.kinds import LOSSY
from restora.photos.metadata import Metadata

LOSSY_QUALITY = 95
DEFLATE = 3
"""zlib's level for pixels: restored photos of 0.75 megapixels took 0.07 s as PNG (1.252 MB) and 0.05 s as
TIFF (1.259 MB); at zlib's own level, 6, 0.19 s (1.257 MB) and 0.12 s (1.247 MB). A CPU restores them in
1.5 s."""
NO_ALPHA = ("JPEG", "PPM", "BMP")
DEEP = ("PNG", "TIFF", "PPM")
NO_EXIF = ("BMP", "PPM")
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_LARGEST_TIFF = 2**32 - 2**20
ICC_SPACES = {1: b"GRAY", 3: b"RGB "}
_JPEG_SEGMENT = 65000


def refuse(photo: Photo, format_name: str, *, scale: int = 1) -> None:
    """Raises ValueError, before restoration, if the format cannot hold the photo enlarged by `scale`."""
    height, width = (side * scale for side in photo.pixels.shape[:2])
    if photo.alpha is not None and format_name in NO_ALPHA and not (photo.alpha == photo.white).all():
        raise ValueError(f"has transparency, which {format_name} cannot hold: write a PNG, TIFF or WebP")
    largest = LARGEST_SIDE.get(format_name)
    if largest is not None and max(height, width) > largest:
        raise ValueError(
            f"cannot be written as {format_name}: {width}x{height} pixels, the longest side is {largest}; "
            "write a PNG or TIFF"
        )
    if format_name == "TIFF" and height * width * 4 * photo.pixels.itemsize > _LARGEST_TIFF:
        raise ValueError(f"cannot be written as TIFF: {width}x{height} pixels may need 4 GB; write a PNG")


def encode(photo: Photo, format_name: str, *, quality: int | None = None) -> bytes:
    """The file's bytes. 16-bit pixels are rounded to 8 where the format has no more.

    `quality` is 1 to 100 for JPEG, AVIF and WebP (which it makes lossy). Raises ValueError when the format
    cannot hold the photo (transparency in a JPEG, more than 16383 pixels in a WebP).
    """
    refuse(photo, format_name)
    photo = photo.upright() if format_name in NO_EXIF else photo
    metadata = _fitting(photo, format_name)
    pixels, alpha = photo.pixels, None if format_name in NO_ALPHA else photo.alpha
    if pixels.dtype == np.uint16 and format_name not in DEEP:
        pixels, alpha = rounded_to_8_bits(pixels), None if alpha is None else rounded_to_8_bits(alpha)
    values = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=-1)
    if format_name == "PNG":
        return _png(values, metadata)
    if format_name == "TIFF":
        return _tiff(values, metadata)
    if format_name == "PPM" and values.dtype == np.uint16:
        return _ppm_16_bit(values)
    image = Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values)
    out = io.BytesIO()
    try:
        image.save(out, format=format_name, **_options(format_name, metadata, quality))
    except (OSError, ValueError, KeyError) as error:
        height, width = pixels.shape[:2]
        raise ValueError(f"cannot be written as {format_name} ({width}x{height} pixels): {error}") from error
    return out.getvalue()


def is_lossy(metadata: Metadata, format_name: str, *, quality: int | None) -> bool:
    """Whether a file of that format holds other pixels than it was given, because they are compressed."""
    if format_name == "WEBP":
        return quality is not None or not metadata.lossless
    return format_name in LOSSY


def lost_in(photo: Photo, format_name: str) -> list[str]:
    """What the photo loses in a file of that format, in words."""
    held = photo.metadata
    lost = list(held.unread)
    if photo.frames > 1:
        lost.append("all frames or pages but the first")
    if photo.pixels.dtype == np.uint16 and format_name not in DEEP:
        lost.append(f"16 bits per channel ({format_name} has 8)")
    keeps_blocks = format_name not in NO_EXIF
    iptc = held.iptc is not None or (held.photoshop and blocks.iptc_of(held.photoshop) is not None)
    large = _too_large(held) if format_name == "JPEG" else ()
    for what, there, kept in (
        ("EXIF", held.exif, keeps_blocks and "EXIF" not in large),
        ("colour profile", held.icc, keeps_blocks),
        ("XMP", held.xmp, keeps_blocks and "XMP" not in large),
        ("extended XMP", held.extended_xmp, format_name == "JPEG"),
        (
            "IPTC" if iptc else "Photoshop's resources",
            held.iptc or held.photoshop,
            format_name in ("JPEG", "TIFF"),
        ),
        ("a comment", held.comments, format_name in ("JPEG", "PNG")),
        ("PNG text", held.has_text, format_name == "PNG"),
        ("gamma or colour chunks of the PNG", _colour_chunks(held), format_name == "PNG"),
    ):
        if there and not kept:
            lost.append(what)
    if held.icc is not None and keeps_blocks and not _profile_fits(photo):
        space = held.icc[16:20].decode("latin-1").strip()
        now = "grey" if photo.pixels.shape[2] == 1 else "RGB"
        lost.append(f"a colour profile for {space} pixels (they are {now})")
    return lost


def _profile_fits(photo: Photo) -> bool:
    """Whether the profile's colour space, which its header names, is that of the pixels."""
    icc = photo.metadata.icc
    return icc is not None and icc[16:20] == ICC_SPACES.get(photo.pixels.shape[2])


def _colour_chunks(metadata: Metadata) -> bool:
    """Whether PNG chunks state that the colours are not sRGB, and no profile does."""
    plain = struct.pack(">I", 45455)
    return metadata.icc is None and any(
        kind == b"cICP" or (kind == b"gAMA" and body != plain) for kind, body in metadata.png_chunks
    )


def _too_large(metadata: Metadata) -> tuple[str, ...]:
    """Blocks that do not fit into one segment of a JPEG."""
    named = {"EXIF": metadata.exif, "XMP": metadata.xmp}
    return tuple(name for name, block in named.items() if block is not None and len(block) > _JPEG_SEGMENT)


def _fitting(photo: Photo, format_name: str) -> Metadata:
    """The metadata as it holds for these pixels in that format.

    A profile of another colour space is left out, sizes are updated, and XMP names no extension that the file
    will not have.
    """
    held = photo.metadata
    height, width, _ = photo.pixels.shape
    xmp = None if held.xmp is None else blocks.xmp_with(held.xmp, width=width, height=height)
    return replace(
        held,
        exif=None if held.exif is None else exif.with_size(held.exif, width, height),
        icc=held.icc if _profile_fits(photo) else None,
        xmp=xmp if xmp is None or format_name == "JPEG" else blocks.without_extension(xmp),
    )


def _options(format_name: str, metadata: Metadata, quality: int | None) -> dict[str, Any]:
    """Pillow's save options for the formats that it writes here."""
    held: dict[str, Any] = {}
    if format_name in LOSSY:
        large = _too_large(metadata) if format_name == "JPEG" else ()
        named = {"icc_profile": metadata.icc}
        if "XMP" not in large:
            named["xmp"] = metadata.xmp
        if metadata.exif is not None and "EXIF" not in large:
            named["exif"] = exif.HEADER + metadata.exif
        held = {name: value for name, value in named.items() if value is not None}
    if format_name == "JPEG":
        held |= {"quality": quality or LOSSY_QUALITY, "subsampling": 0, "extra": _jpeg_extra(metadata)}
    elif format_name == "WEBP":
        lossless = not is_lossy(metadata, format_name, quality=quality)
        held |= {"lossless": lossless, "quality": 80 if lossless else quality or LOSSY_QUALITY, "exact": True}
    elif format_name == "AVIF":
        held |= {"quality": quality or LOSSY_QUALITY, "subsampling": "4:4:4"}
    if format_name in ("JPEG", "BMP") and metadata.dpi is not None:
        held["dpi"] = metadata.dpi
    return held


def _jpeg_extra(metadata: Metadata) -> bytes:
    """The segments that Pillow does not write: Photoshop's with the IPTC block, extended XMP, comments."""
    resources = metadata.photoshop
    if resources is None and metadata.iptc is not None:
        resources = blocks.resources_of(metadata.iptc)
    parts = [] if resources is None else [blocks.photoshop_segments(resources)]
    parts += [blocks.jpeg_segment(0xE1, body) for body in metadata.extended_xmp]
    return b"".join([*parts, *map(blocks.comment_segments, metadata.comments)])


def _png(values: Pixels, metadata: Metadata) -> bytes:
    """(H,W,C) -> PNG file, with the chunks of a PNG source and chunks made from other metadata."""
    if values.dtype == np.uint8:
        out = io.BytesIO()
        Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values).save(
            out, format="PNG", compress_level=DEFLATE
        )
        file = out.getvalue()
    else:
        file = _png_16_bit(values)
    header, *rest = blocks.png_chunks(file)
    extra = _png_chunks_from(metadata)
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in [header, *extra, *rest])


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
    body = zlib.compress(filtered.tobytes(), DEFLATE)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def _png_chunks_from(metadata: Metadata) -> list[Chunk]:
    """Profile, resolution, text, XMP and EXIF as chunks that may stand before the pixels."""
    chunks: list[Chunk] = list(metadata.png_chunks)
    held = {kind for kind, _ in chunks}
    if metadata.icc is not None:  # replaces sRGB: a file may not have both
        chunks = [chunk for chunk in chunks if chunk[0] != b"sRGB"]
        chunks.insert(0, (b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc)))
    if metadata.dpi is not None and b"pHYs" not in held:
        x, y = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    chunks += [(b"iTXt", b"Comment\x00" + bytes(4) + _as_utf8(body)) for body in metadata.comments]
    if metadata.xmp is not None:
        chunks.append(blocks.xmp_chunk(metadata.xmp))
    if metadata.exif is not None:
        chunks.append((b"eXIf", metadata.exif))
    return chunks


def _as_utf8(text: bytes) -> bytes:
    try:
        return text.decode().encode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()


def _ppm_16_bit(values: Pixels) -> bytes:
    height, width, channels = values.shape
    kind = "P5" if channels == 1 else "P6"
    return f"{kind}\n{width} {height}\n65535\n".encode() + values.astype(">u2").tobytes()


def _tiff(values: Pixels, metadata: Metadata) -> bytes:
    """(H,W,C) -> TIFF file of one deflated strip with horizontal differencing."""
    height, width, channels = values.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()  # little-endian
    differences = np.concatenate([values[:, :1], values[:, 1:] - values[:, :-1]], axis=1)
    strip = zlib.compress(differences.astype(values.dtype.newbyteorder("<")).tobytes(), DEFLATE)
    _describe(tags, metadata)
    tags[256], tags[257] = width, height
    tags[258] = (values.itemsize * 8,) * channels
    tags[259], tags[317] = 8, 2  # deflate, horizontal differencing
    tags[262] = 1 if channels < 3 else 2  # black is zero, or RGB
    tags[273], tags[277], tags[278], tags[279] = 0, channels, height, len(strip)
    tags[284] = 1  # channels interleaved
    if channels in (2, 4):
        tags[338] = 2  # the last channel is alpha, not premultiplied
    out = io.BytesIO()
    tags.save(out)
    out.write(strip)
    return out.getvalue()


def _describe(tags: TiffImagePlugin.ImageFileDirectory_v2, metadata: Metadata) -> None:
    """Puts the descriptive tags, the profile and the other blocks into a TIFF directory."""
    if metadata.exif is not None:
        exif.write_into(tags, metadata.exif)
    if metadata.dpi is not None:
        tags[282], tags[283], tags[296] = metadata.dpi[0], metadata.dpi[1], 2  # pixels per inch
    iptc = metadata.iptc
    if iptc is None and metadata.photoshop is not None:
        iptc = blocks.iptc_of(metadata.photoshop)
    for tag, block, kind in (
        *((exif.ICC, metadata.icc, 7), (exif.XMP, metadata.xmp, 1)),
        *((exif.IPTC, iptc, 7), (exif.PHOTOSHOP, metadata.photoshop, 1)),
    ):
        if block is not None:
            tags.tagtype[tag] = kind
            tags[tag] = block
