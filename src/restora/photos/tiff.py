"""TIFF files: their tags, and the pixels of those that Pillow does not read.

Pillow has no 16-bit colour, and OpenCV ignores some tags (planes, white as zero, premultiplied alpha). Here
the file's own tags are read. Then libtiff, through Pillow, decompresses the file under a new directory, which
declares each row of samples as a row of bytes; everything else is done here.

Legend: H height, W width, S samples per pixel in one plane (all of them, or 1 with separate planes), P
planes.
"""

import io
import struct
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from restora.photos.errors import DecodingError

Samples = NDArray[np.uint8] | NDArray[np.uint16]
MAGIC = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 317, 322, 323, 324, 325
_SUBFILE_TYPE, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DNG_VERSION = 254, 338, 339, 50706
_IMAGE_DEPTH = 32997
_PREVIEW_OR_MASK = 1 | 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSPECIFIED, _MULTIPLIED_IN = 0, 1
_FLOAT, _COMPLEX_FLOAT = 3, 6
_OF_BYTES = {1, 5, 8, 32946, 32773, 34925, 50000}
"""Compressions of bytes regardless of samples: none, LZW, deflate (two codes), PackBits, LZMA, Zstandard."""
_PAGES_COUNTED = 10_000


@dataclass(frozen=True)
class Page:
    """The first page of a TIFF file. `pages` counts those that are neither previews nor masks.

    Slices of a volume within the first page count as pages.
    """

    tags: ImageFileDirectory_v2
    header: bytes
    offset: int
    pages: int

    @property
    def big(self) -> bool:
        """Whether this is a BigTIFF, of 64-bit offsets."""
        return b"\x2b" in self.header[:4]

    @property
    def orientation(self) -> int:
        value = self.number(_ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) as stored."""
        return int(self.tags[_WIDTH]), int(self.tags[_HEIGHT])

    @property
    def bits(self) -> int:
        return max(self.numbers(_BITS) or [1])

    @property
    def is_raw(self) -> bool:
        """Whether this is a camera's raw file (DNG), whose first page is a preview."""
        return _DNG_VERSION in self.tags

    def number(self, tag: int, default: int) -> int:
        return (self.numbers(tag) or [default])[0]

    def numbers(self, tag: int) -> list[int]:
        held: Any = self.tags.get(tag, ())
        return [int(value) for value in (held if isinstance(held, tuple) else (held,))]


def first_page(file: BinaryIO) -> Page:
    """Reads the directories, no pixels. Raises what Pillow and `struct` raise on broken files."""
    file.seek(0)
    header = file.read(8)
    if header[:4] == MAGIC[3]:
        raise DecodingError("is a big-endian BigTIFF, which is not read: save it as a TIFF")
    if header[2:4] in (b"\x2b\x00", b"\x00\x2b"):
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    offset = tags.next
    file.seek(offset)
    tags.load(file)
    pages, visited, after = 1, {offset}, tags.next
    while after and after not in visited and len(visited) < _PAGES_COUNTED:
        visited.add(after)
        file.seek(after)
        further = ImageFileDirectory_v2(header)
        further.load(file)
        pages += not int(further.get(_SUBFILE_TYPE, 0)) & _PREVIEW_OR_MASK
        after = further.next
    first = Page(tags, header, offset, pages)
    return replace(first, pages=pages - 1 + max(first.number(_IMAGE_DEPTH, 1), 1))


def check_samples(page: Page) -> None:
    """Raises `DecodingError` for samples that are not supported.

    Supported are unsigned integers of at most 16 bits, as many in each channel, and besides the colours one
    channel that is declared as alpha.
    """
    formats = set(page.numbers(_SAMPLE_FORMAT)) or {1}
    bits = set(page.numbers(_BITS)) or {1}
    if formats & {_FLOAT, _COMPLEX_FLOAT}:
        raise DecodingError("has floating-point pixels: convert it to 8 or 16 bits first")
    if max(bits) > 16:
        raise DecodingError("has more than 16 bits per channel: convert it to 8 or 16 bits first")
    if formats != {1}:
        raise DecodingError("has samples that are not unsigned numbers: convert it to 8 or 16 bits first")
    extra = page.numbers(_EXTRA_SAMPLES)
    if len(extra) > 1 or _UNSPECIFIED in extra:
        raise DecodingError(
            f"has {len(extra)} more channels than its colours, not (only) transparency: save it without them"
        )
    if len(bits) > 1:
        raise DecodingError(f"has channels of {' and '.join(map(str, sorted(bits)))} bits: make them equal")


def is_decoded_here(page: Page) -> bool:
    """Whether `decode` reads the pixels: more than 8 bits, or transparency in layouts unknown to Pillow."""
    if page.bits != 8 or not page.numbers(_EXTRA_SAMPLES) or page.number(_COMPRESSION, 1) not in _OF_BYTES:
        return page.bits > 8
    colours = page.number(_PHOTOMETRIC, -1)
    return colours == _WHITE_IS_ZERO or (colours in (_BLACK_IS_ZERO, _RGB) and page.number(_PLANAR, 1) == 2)


def decode(data: bytes, page: Page) -> tuple[Samples, Samples | None]:
    """(H,W,C) and alpha (H,W) of a file with 8 to 16 bits per sample, more than 8 scaled to 16, as stored."""
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}.get(page.number(_PHOTOMETRIC, -1))
    samples, compression = page.number(_SAMPLES, 1), page.number(_COMPRESSION, 1)
    if colours is None or samples not in (colours, colours + 1):
        raise DecodingError(
            f"is a {page.bits}-bit photo of a kind that cannot be read: convert it to grey or RGB first"
        )
    if compression not in _OF_BYTES or page.number(_FILL_ORDER, 1) != 1:
        raise DecodingError(
            f"is a {page.bits}-bit TIFF of compression {compression}, which is not read: save it with "
            "deflate or LZW"
        )
    planes = samples if page.number(_PLANAR, 1) == 2 else 1
    values: NDArray[Any] = np.concatenate([_plane(data, page, n, planes) for n in range(planes)], axis=2)
    pixels, alpha = values[..., :colours], values[..., colours] if samples > colours else None
    if page.number(_PHOTOMETRIC, -1) == _WHITE_IS_ZERO:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if alpha is not None and page.numbers(_EXTRA_SAMPLES) == [_MULTIPLIED_IN]:
        pixels = _divided(pixels, alpha)
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)


def _plane(data: bytes, page: Page, plane: int, planes: int) -> Samples:
    """(H,W,S) of one of P planes, of 8 bits or scaled to 16."""
    (width, height), bits = page.size, page.bits
    samples = page.number(_SAMPLES, 1) // planes
    tile = page.number(_TILE_WIDTH, 0)
    predictor = page.number(_PREDICTOR, 1)
    if predictor not in (1, 2) or (bits not in (8, 16) and (predictor == 2 or tile)):
        raise DecodingError(f"is a {bits}-bit TIFF of a layout that cannot be read: save it with 16 bits")
    rows = _rows_of_bytes(data, page, plane, planes, -(-width * samples * bits // 8))
    if bits not in (8, 16):
        return _unpacked(rows, width * samples, bits).reshape(height, width, samples)
    order = "u1" if bits == 8 else ">u2" if page.header[:2] == b"MM" else "<u2"
    values: NDArray[Any] = rows.view(order).astype(f"u{bits // 8}").reshape(height, width, samples)
    if predictor == 2:  # each value was stored as the difference to its left neighbour, anew in every tile
        step = tile or width
        for left in range(0, width, step):
            part = values[:, left : left + step]
            np.add.accumulate(part, axis=1, dtype=part.dtype, out=part)
    return values


def _rows_of_bytes(data: bytes, page: Page, plane: int, planes: int, row: int) -> NDArray[np.uint8]:
    """uint8 (H,row): the decompressed rows of one plane."""
    per_pixel = page.number(_SAMPLES, 1) // planes * page.bits // 8
    tiled = bool(page.number(_TILE_WIDTH, 0))
    offsets = page.numbers(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    sizes = page.numbers(_TILE_SIZES if tiled else _STRIP_SIZES)
    pieces = slice(len(offsets) // planes * plane, len(offsets) // planes * (plane + 1))
    height = page.size[1]
    tags = {_WIDTH: [row], _HEIGHT: [height], _BITS: [8], _COMPRESSION: [page.number(_COMPRESSION, 1)]}
    tags |= {_PHOTOMETRIC: [_BLACK_IS_ZERO], _SAMPLES: [1], _PLANAR: [1]}
    if tiled:
        tags |= {
            _TILE_WIDTH: [page.number(_TILE_WIDTH, 0) * per_pixel],
            _TILE_HEIGHT: page.numbers(_TILE_HEIGHT),
        }
        tags |= {_TILE_OFFSETS: offsets[pieces], _TILE_SIZES: sizes[pieces]}
    else:
        tags |= {_ROWS_PER_STRIP: [min(page.number(_ROWS_PER_STRIP, height), height)]}
        tags |= {_STRIP_OFFSETS: offsets[pieces], _STRIP_SIZES: sizes[pieces]}
    with Image.open(io.BytesIO(_with_directory(data, page, tags)), formats=["TIFF"]) as image:
        return np.asarray(image).reshape(height, row)


def _with_directory(data: bytes, page: Page, tags: dict[int, list[int]]) -> bytes:
    """The file with one directory more at its end, to which its header points."""
    end = ">" if page.header[:2] == b"MM" else "<"
    number, size, kind = ("Q", 8, 16) if page.big else ("I", 4, 4)
    at = len(data) + len(data) % 2
    entries, lists = [], b""
    for tag in sorted(tags):
        values = struct.pack(f"{end}{len(tags[tag])}{number}", *tags[tag])
        if len(values) > size:
            values, lists = struct.pack(f"{end}{number}", at + len(lists)), lists + values
        entries.append(struct.pack(f"{end}HH{number}", tag, kind, len(tags[tag])) + values)
    count = struct.pack(f"{end}{'Q' if page.big else 'H'}", len(entries))
    directory = count + b"".join(entries) + bytes(size)
    start = 8 if page.big else 4
    header = page.header[:start] + struct.pack(f"{end}{number}", at + len(lists))
    return b"".join((header, data[len(header) :], bytes(len(data) % 2), lists, directory))


def _unpacked(rows: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint16]:
    """(H,row) bytes of numbers of `bits` bits, rows padded to a byte -> (H,count), scaled to 16 bits."""
    top = 2**bits - 1
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint32)
    out = np.empty((rows.shape[0], count), np.uint16)
    for index, line in enumerate(rows):
        numbers = np.unpackbits(line)[: count * bits].reshape(count, bits) @ weights
        out[index] = (numbers * 65535 + top // 2) // top
    return out


def _divided(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Undoes the premultiplication of (H,W,C) colours by (H,W) alpha; unchanged where alpha is 0."""
    out, top = pixels.copy(), np.iinfo(pixels.dtype).max
    for colours, line in zip(out, alpha, strict=True):
        seen = line > 0
        below = line[seen].astype(np.uint64)[:, None]
        colours[seen] = np.minimum((colours[seen].astype(np.uint64) * top + below // 2) // below, top)
    return out
