"""Photos as people have them: read into pixels and metadata, written back in their own format with nothing
lost.

`read_photo` gives pixels as `data/decoding.py` finds them, grey or RGB, 8 or 16 bits, alpha apart: an EXIF
orientation is not applied, the tag is kept with the pixels. What surprises: Pillow itself turns TIFF files
upright and takes their orientation tag away.

Legend: H height, W width, C channels (1 or 3).
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from restora.photos.decoding import PNG_SIGNATURE, Decoded, Pixels, decode, decoding_errors

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
OTHER_PHOTO_SUFFIXES = frozenset(
    (
        *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".exr", ".hdr"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
    )
)
"""Photos too, but of formats that this module does not write."""

PNG_KEPT = frozenset(
    (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
)
"""Chunks copied as they are: those that hold for the new pixels (eXIf is written from `Metadata.exif`)."""
EXIF_HEADER = b"Exif\x00\x00"
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003
TIFF_STRUCTURE = frozenset(
    (
        *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330),
        *(338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532, 700, 34675),
    )
)
"""TIFF tags that describe the file's own layout, and the two (XMP, ICC) that travel apart."""


@dataclass
class Metadata:
    """What travels with the pixels. `exif` is the TIFF structure without the `Exif` marker."""

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    png_chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    lossless: bool = True
    """False for a lossy WebP: it is written lossy again."""


@dataclass
class Photo:
    """`pixels` (H,W,C) uint8 or uint16, `alpha` (H,W) of the same type or None."""

    pixels: Pixels
    alpha: Pixels | None
    metadata: Metadata

    @property
    def white(self) -> int:
        """The number that stands for 1.0: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def read_photo(path: Path) -> Photo:
    """Raises ValueError that says why the file cannot be read; the message does not repeat the path."""
    data = path.read_bytes()
    with decoding_errors():
        held = decode(data)
        return Photo(held.pixels, held.alpha, _metadata(held, data))


def _metadata(held: Decoded, data: bytes) -> Metadata:
    """What a photo, whose file is `data`, says about itself."""
    image, info = held.image, held.image.info
    made = Metadata(icc=held.icc, xmp=info.get("xmp"), comment=info.get("comment"))
    if isinstance(made.xmp, str):
        made.xmp = made.xmp.encode()
    if image.format == "TIFF":
        made.exif = _exif_of_tiff(image)
    elif isinstance(info.get("exif"), bytes):
        made.exif = info["exif"].removeprefix(EXIF_HEADER)
    if image.format == "PNG":
        made.png_chunks = [(kind, body) for kind, body in png_chunks(data) if kind in PNG_KEPT]
    if image.format == "WEBP":
        made.lossless = b"VP8L" in _webp_chunks(data)
    resolution = info.get("dpi")
    if isinstance(resolution, tuple) and all(value > 1 for value in resolution):
        made.dpi = (float(resolution[0]), float(resolution[1]))
    return made


def _exif_of_tiff(image: Image.Image) -> bytes | None:
    """The descriptive tags of a TIFF file, with its EXIF and GPS directories, as an EXIF block."""
    tags = image.getexif()
    kept = Image.Exif()
    for tag, value in tags.items():
        if tag not in TIFF_STRUCTURE and tag not in (EXIF_IFD, GPS_IFD):
            kept[tag] = value
    for tag in (EXIF_IFD, GPS_IFD):
        directory = tags.get_ifd(tag)
        if directory:
            kept.get_ifd(tag).update(directory)
    return kept.tobytes().removeprefix(EXIF_HEADER) if len(kept) or kept.get_ifd(EXIF_IFD) else None


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of the chunks of a PNG file, in their order."""
    chunks, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _webp_chunks(data: bytes) -> set[bytes]:
    """The types of the chunks of a WebP file."""
    kinds, at = set(), 12
    while at + 8 <= len(data):
        kinds.add(data[at : at + 4])
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + length % 2
    return kinds
