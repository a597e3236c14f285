"""EXIF blocks: checked, made from TIFF tags, and their sizes replaced.

A block is the TIFF structure, without the `Exif` marker.

Sizes are replaced in place: parsing and rewriting a block would lose its preview, and the maker notes, whose
offsets count from the start of the block.
"""

import io
import struct
from collections.abc import Iterator

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from restora.photos.header import ORIENTATION
from restora.photos.tiff import Page

HEADER = b"Exif\x00\x00"
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
WIDTHS, HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
IPTC, PHOTOSHOP, XMP, ICC = 33723, 34377, 700, 34675
TIFF_STRUCTURE = frozenset(
    (
        *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330),
        *(338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532, 37724),
        *(IPTC, PHOTOSHOP, XMP, ICC),
    )
)
"""TIFF tags of the file's own layout, and of blocks that are copied separately."""
_FIRST_OF_RAW_FILES = 50000
_SHORT, _LONG = 3, 4
_DESCRIPTION = 270


def parsed(exif: bytes) -> Image.Exif:
    """The block parsed by Pillow. Raises what Pillow raises on broken blocks."""
    made = Image.Exif()
    made.load(HEADER + exif)
    return made


def orientation(exif: bytes | None) -> int:
    """1 to 8; 1 without a block, or if its value is not valid."""
    value = 1 if exif is None else parsed(exif).get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_whole(exif: bytes) -> bool:
    """Whether the block and its directories can be parsed."""
    try:
        made = parsed(exif)
        for directory in (EXIF_IFD, GPS_IFD):
            made.get_ifd(directory)
        list(_entries(exif))
        orientation(exif)
    except Exception:  # Pillow raises exceptions of any type on broken blocks
        return False
    return True


def of_tiff(data: bytes, page: Page) -> bytes | None:
    """The descriptive tags of a TIFF or raw file, with its EXIF and GPS directories."""
    tags = Image.Exif()
    tags.bigtiff = page.big
    tags.endian = ">" if page.header[:2] == b"MM" else "<"
    tags.load_from_fp(io.BytesIO(data), page.offset)
    kept = Image.Exif()
    for tag, value in tags.items():
        of_layout = tag in TIFF_STRUCTURE or tag >= _FIRST_OF_RAW_FILES
        of_layout |= tag == _DESCRIPTION and str(value).startswith('{"shape"')  # tifffile's, for its arrays
        if not of_layout and tag not in (EXIF_IFD, GPS_IFD):
            kept[tag] = 1 if tag == ORIENTATION else value  # the pixels were turned
    for tag in (EXIF_IFD, GPS_IFD):
        directory = tags.get_ifd(tag)
        if directory:
            kept.get_ifd(tag).update(directory)
    held = len(kept) or kept.get_ifd(EXIF_IFD) or kept.get_ifd(GPS_IFD)
    return kept.tobytes().removeprefix(HEADER) if held else None


def with_size(exif: bytes, width: int, height: int) -> bytes:
    """The block with the sizes that it records, if any, replaced."""
    return _replaced(exif, dict.fromkeys(WIDTHS, width) | dict.fromkeys(HEIGHTS, height))


def upright(exif: bytes) -> bytes:
    """The block of a photo whose orientation was applied."""
    return _replaced(exif, {ORIENTATION: 1})


def _replaced(exif: bytes, numbers: dict[int, int]) -> bytes:
    block = bytearray(exif)
    end = ">" if exif[:2] == b"MM" else "<"
    for tag, kind, at in _entries(exif):
        number = numbers.get(tag)
        if number is not None and kind == _LONG:
            struct.pack_into(f"{end}I", block, at, number)
        elif number is not None and kind == _SHORT and number < 1 << 16:
            struct.pack_into(f"{end}H", block, at, number)
    return bytes(block)


def write_into(tags: ImageFileDirectory_v2, exif: bytes) -> None:
    """Copies the block's tags into those of a TIFF file."""
    made = parsed(exif)
    for tag, value in made.items():
        if tag not in TIFF_STRUCTURE and tag not in (EXIF_IFD, GPS_IFD):
            tags[tag] = value
    for tag in (EXIF_IFD, GPS_IFD):
        if directory := dict(made.get_ifd(tag)):
            tags[tag] = directory


def _entries(exif: bytes) -> Iterator[tuple[int, int, int]]:
    """(tag, type, offset of the value) of the entries of the first directory and the EXIF directory.

    Only these two are read, even if a broken block claims more, or a directory within itself.
    """
    end = ">" if exif[:2] == b"MM" else "<"
    (first,) = struct.unpack_from(f"{end}I", exif, 4)
    directories = [first]
    for at in directories:
        (count,) = struct.unpack_from(f"{end}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{end}HHII", exif, entry)
            yield tag, kind, entry + 8
            if tag == EXIF_IFD and directories == [first] and value != first:
                directories.append(value)
