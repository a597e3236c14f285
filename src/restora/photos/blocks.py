"""Metadata blocks of the formats: PNG chunks, JPEG segments, WebP chunks, Photoshop's resources, XMP.

Enters and leaves: bytes. Nothing here handles pixels.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from restora.photos.header import PNG_SIGNATURE

Chunk = tuple[bytes, bytes]
"""(type, body)"""
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
PHOTOSHOP = b"Photoshop 3.0\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ICC, _MPF, _EXIF, _ADOBE = b"ICC_PROFILE\x00", b"MPF\x00", b"Exif\x00", b"Adobe"
_JPEG_STRUCTURE = (b"JFIF\x00", b"JFXX\x00", b"AVI1", _ICC, _EXIF, _ADOBE, _XMP, EXTENDED_XMP, PHOTOSHOP)
_SEGMENT = 65533
_IPTC_RESOURCE = 0x0404
_XMP_TEXT = b"XML:com.adobe.xmp\x00"


def png_chunks(data: bytes) -> list[Chunk]:
    """The chunks of a PNG file, in their order."""
    chunks, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def is_xmp(chunk: Chunk) -> bool:
    return chunk[0] == b"iTXt" and chunk[1].startswith(_XMP_TEXT)


def xmp_chunk(xmp: bytes) -> Chunk:
    return b"iTXt", _XMP_TEXT + bytes(4) + xmp


def webp_chunks(data: bytes) -> set[bytes]:
    """The types of the chunks of a WebP file, and of the first chunk in each frame of an animation."""
    kinds, at = set(), 12
    while at + 8 <= len(data):
        kinds.add(data[at : at + 4])
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"ANMF":
            kinds.add(data[at + 24 : at + 28])
        at += 8 + length + length % 2
    return kinds


def is_deep_avif(data: bytes) -> bool:
    """Whether the codec's configuration in an AVIF file says more than 8 bits per channel."""
    at = data.find(b"av1C")
    return 0 <= at < len(data) - 6 and bool(data[at + 6] & 0x40)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment before the pixels of a JPEG file."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def unknown_segment(marker: int, body: bytes) -> str | None:
    """The name of a segment that is not handled here, such as another program's; None for known ones."""
    if not 0xE0 <= marker <= 0xEF or body.startswith(_JPEG_STRUCTURE):
        return None
    if body.startswith(_MPF):
        return "further pictures (MPF)"
    name = re.match(rb"[ -~]{3,40}", body)
    return f"APP{marker - 0xE0}" + (f" ({name[0].decode()})" if name else "")


def comment_segments(comment: bytes) -> bytes:
    """A comment as JPEG segments; those of other formats may be longer than one holds."""
    parts = [comment[at : at + _SEGMENT] for at in range(0, len(comment), _SEGMENT)]
    return b"".join(jpeg_segment(0xFE, part) for part in parts)


def photoshop_segments(resources: bytes) -> bytes:
    """Photoshop's resources as JPEG segments."""
    room = _SEGMENT - len(PHOTOSHOP)
    parts = [resources[at : at + room] for at in range(0, len(resources), room)]
    return b"".join(jpeg_segment(0xED, PHOTOSHOP + part) for part in parts)


def iptc_of(resources: bytes) -> bytes | None:
    """The IPTC block among Photoshop's resources."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        named = at + 6 + (resources[at + 6] + 2) // 2 * 2  # a Pascal string, filled up to an even length
        (length,) = struct.unpack_from(">I", resources, named)
        if number == _IPTC_RESOURCE:
            return resources[named + 4 : named + 4 + length]
        at = named + 4 + length + length % 2
    return None


def resources_of(iptc: bytes) -> bytes:
    """An IPTC block as Photoshop's only resource."""
    head = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc))
    return head + iptc + bytes(len(iptc) % 2)


def xmp_with(xmp: bytes, *, width: int, height: int) -> bytes:
    """The XMP block with the sizes that it records replaced."""
    for names, number in (
        (b"tiff:ImageWidth|exif:PixelXDimension", width),
        (b"tiff:ImageLength|tiff:ImageHeight|exif:PixelYDimension", height),
    ):
        xmp = _replaced(xmp, names, number)
    return xmp


def without_extension(xmp: bytes) -> bytes:
    """The XMP block without its reference to extended XMP."""
    attribute, element = (
        rb"\s*xmpNote:HasExtendedXMP\s*=\s*[\"'][^\"']*[\"']",
        rb"<xmpNote:HasExtendedXMP>[^<]*</[^>]*>",
    )
    return re.sub(element, b"", re.sub(attribute, b"", xmp))


def upright_xmp(xmp: bytes) -> bytes:
    """The XMP block of a photo that was turned upright."""
    return _replaced(xmp, b"tiff:Orientation", 1)


def _replaced(xmp: bytes, names: bytes, number: int) -> bytes:
    pattern = rb"((?:%s)(?:\s*=\s*[\"']|>\s*))\d+" % names
    return re.sub(pattern, rb"\g<1>%d" % number, xmp)
