"""The header of a photo file, read before its pixels are decoded: format, size, frames.

Enters: an open file, and its name where it has one (camera raw files look like TIFF). Leaves: a `Header`,
or a `DecodingError`. The limit on pixels is enforced here, so that no larger file is decoded.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from restora.photos import deep_pnm, extra_formats, tiff
from restora.photos.errors import DecodingError
from restora.photos.kinds import check_size, kind, why_not

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
QUARTER_TURNED = (5, 6, 7, 8)
_DESCRIPTIVE = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that may hold EXIF or XMP."""
_READ = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "BMP", "DIB", "PPM", "GIF", "JPEG2000", "TIFF", "HEIF")
"""Pillow's names of the formats that are read. It opens more, some (EPS) by running another program."""
_JP2_CODESTREAM = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Header:
    """The contents of a photo's header.

    `width` and `height` are those of the decoded pixels; `orientation` (EXIF, 1 to 8) is what a viewer still
    has to apply to these; `frames` is more than 1 for animations and for several pages; `bits` per channel.
    """

    format_name: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1
    bits: int = 8
    page: tiff.Page | None = None

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    @property
    def shown(self) -> tuple[int, int]:
        """(H, W) as a viewer shows the photo."""
        turned = self.orientation in QUARTER_TURNED
        return (self.width, self.height) if turned else (self.height, self.width)


@contextmanager
def decoding_errors() -> Iterator[None]:
    """Turns exceptions of decoders on broken files into `DecodingError`."""
    try:
        yield
    except DecodingError:
        raise
    except UnidentifiedImageError as error:
        raise DecodingError("is not a photo in a known format") from error
    except MemoryError as error:
        raise DecodingError("needs more memory than there is") from error
    except Exception as error:  # broken files make decoders raise exceptions of any type
        words = str(error)
        if not any(letter.isalpha() for letter in words):  # KeyError(256): a tag that is missing
            words = f"the file is damaged ({type(error).__name__} {words}".rstrip() + ")"
        raise DecodingError(f"cannot be decoded: {words}") from error


def check_file(path: Path) -> None:
    """Raises `DecodingError` for a path that is not a file, or an empty one."""
    if not path.exists():
        raise DecodingError("is a link to nowhere" if path.is_symlink() else "does not exist")
    if not path.is_file():
        raise DecodingError("is not a file")
    if path.stat().st_size == 0:
        raise DecodingError("is empty")


def look(file: BinaryIO | bytes, name: str | os.PathLike[str] = "", *, limit: int | None = None) -> Header:
    """The header of a photo.

    Raises `DecodingError` for a file that is not a photo, or has more pixels than `limit` (without one:
    RESTORA_MAX_MEGAPIXELS).
    """
    if kind(name) in ("unreadable", "video"):
        raise DecodingError(why_not(name))
    with decoding_errors():
        header = _look(io.BytesIO(file) if isinstance(file, bytes) else file, os.fspath(name))
    check_size(header.width, header.height, limit)
    return header


def _look(file: BinaryIO, name: str) -> Header:
    start = file.read(512)
    file.seek(0)
    page = tiff.first_page(file) if start.startswith(tiff.MAGIC) else None
    file.seek(0)
    if extra_formats.is_raw(start, name) or (page is not None and page.is_raw):
        width, height = extra_formats.raw_size(file.read())
        return Header("RAW", width, height, bits=16, page=page)
    if page is not None:
        tiff.check_samples(page)
        width, height = page.size
        if page.orientation in QUARTER_TURNED:
            width, height = height, width
        return Header("TIFF", width, height, frames=page.pages, bits=page.bits, page=page)
    with opened(file) as image:
        frames = getattr(image, "n_frames", 1)
        frames = (
            1 if image.format in ("MPO", "HEIF") else frames
        )  # MPO: a phone's JPEG that is followed by previews
        bits = _bits(image, start, file)
        return Header(_name(image), *image.size, orientation_of(image, file), frames, bits)


def opened(file: BinaryIO) -> Image.Image:
    """Pillow's image, its pixels not loaded. Raises UnidentifiedImageError for formats that are not read."""
    Image.MAX_IMAGE_PIXELS = (
        None  # only our limit holds; Pillow warns above its own, and raises above twice that
    )
    start = file.read(512)
    file.seek(0)
    image = extra_formats.open_heif(file) if extra_formats.is_heif(start) else Image.open(file)
    if image.format not in _READ:
        raise UnidentifiedImageError(f"{image.format} is not read")
    return image


def orientation_of(image: Image.Image, file: BinaryIO) -> int:
    """The EXIF orientation that is still to be applied to decoded pixels.

    It is 1 for formats whose decoders apply it, or if the EXIF block is broken.
    """
    if image.format in ("TIFF", "HEIF"):
        return 1
    try:
        if image.format == "PNG":  # whose EXIF may follow the pixels, which Pillow would decode to reach it
            image = Image.open(_without_pixels(file), formats=["PNG"])
        value = int(Image.Image.getexif(image).get(ORIENTATION, 1))
    except DecodingError:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, zlib.error):
        return 1
    return value if 1 <= value <= 8 else 1


def _name(image: Image.Image) -> str:
    return {"MPO": "JPEG"}.get(image.format or "", image.format or "")


def _bits(image: Image.Image, start: bytes, file: BinaryIO) -> int:
    """Bits per channel as stored. Raises `DecodingError` for depths that cannot be read."""
    too_deep = "has more than 16 bits per channel: convert it to 8 or 16 bits first"
    tiles = getattr(image, "tile", None)  # how the file stores the pixels: (codec, extents, offset, raw mode)
    stored = tiles[0][3] if tiles else ""
    if image.format == "PPM":
        if image.mode == "F":
            raise DecodingError(too_deep)
        return 16 if deep_pnm.largest_value(start) > 255 else 8
    if image.format == "HEIF":
        return 16 if int(image.info.get("bit_depth", 8)) > 8 else 8
    if image.format == "JPEG2000":
        if _deep_jpeg2000(file):
            raise DecodingError("is a JPEG 2000 of more than 8 bits: convert it to PNG or TIFF first")
        return 8
    if image.mode in ("I", "F"):
        raise DecodingError(too_deep)
    deep = image.mode.startswith("I;16") or (isinstance(stored, str) and stored.endswith(";16B"))
    return 16 if deep else 8


def _deep_jpeg2000(file: BinaryIO) -> bool:
    at = file.tell()
    file.seek(0)
    _, found, after = file.read(1 << 16).partition(_JP2_CODESTREAM)
    file.seek(at)
    return bool(found) and len(after) > 38 and (after[38] & 0x7F) + 1 > 8


def _without_pixels(file: BinaryIO) -> BinaryIO:
    """A PNG file with its header and descriptive chunks, also those that follow the pixels."""
    at, made = file.tell(), io.BytesIO()
    try:
        file.seek(0)
        made.write(file.read(len(PNG_SIGNATURE)))
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind in (b"IHDR", *_DESCRIPTIVE):
                made.write(start + file.read(length + 4))  # with its checksum
            else:
                file.seek(length + 4, os.SEEK_CUR)
    finally:
        file.seek(at)
    made.write(bytes(4) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    made.seek(0)
    return made
