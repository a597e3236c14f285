"""The metadata of a photo, read from every format into one form.

Nothing is dropped silently: metadata that have no place in that form are named in `Metadata.unread`.
"""

from dataclasses import dataclass, field
from typing import Any

from restora.photos import blocks, exif
from restora.photos.blocks import Chunk
from restora.photos.decoding import Decoded

PNG_COLOUR = frozenset((b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"))
PNG_TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt"))
PNG_KEPT = PNG_COLOUR | PNG_TEXT | {b"pHYs", b"tIME"}
"""Chunks that are copied unchanged, because they hold for the new pixels too."""
_PNG_ELSEWHERE = frozenset((b"iCCP", b"eXIf"))
_ALWAYS_UPRIGHT = ("TIFF", "HEIF", "RAW")


@dataclass(frozen=True)
class Metadata:
    """The contents of a photo's file besides its pixels.

    `exif` is the TIFF structure without the `Exif` marker; `photoshop` are Photoshop's resources, with
    the IPTC block among them, `iptc` an IPTC block by itself; `extended_xmp` are unchanged JPEG segments.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    extended_xmp: tuple[bytes, ...] = ()
    iptc: bytes | None = None
    photoshop: bytes | None = None
    dpi: tuple[float, float] | None = None
    comments: tuple[bytes, ...] = ()
    png_chunks: tuple[Chunk, ...] = ()
    lossless: bool = True
    """False for a lossy WebP: it is written lossy again."""
    unread: tuple[str, ...] = ()
    """Metadata that could not be kept, in words."""

    @property
    def has_text(self) -> bool:
        """Whether PNG text is among the chunks."""
        return any(kind in PNG_TEXT for kind, _ in self.png_chunks)


@dataclass
class _Found:
    """Parts of `Metadata` while they are collected."""

    parts: dict[str, Any] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def metadata_of(held: Decoded, data: bytes) -> Metadata:
    """The metadata of a photo whose file is `data`."""
    info, name = held.info, held.header.format_name
    found = _Found({"icc": held.icc}, [held.converted] if held.converted else [])
    if held.header.page is not None:
        _from_tiff(held, data, found)
    if isinstance(info.get("exif"), bytes):
        found.parts["exif"] = info["exif"].removeprefix(exif.HEADER)
    xmp: Any = found.parts.get("xmp") or info.get("xmp")
    found.parts["xmp"] = (xmp.encode() if isinstance(xmp, str) else xmp) or None
    if name == "PNG":
        chunks = [chunk for chunk in blocks.png_chunks(data) if not blocks.is_xmp(chunk)]
        found.parts["png_chunks"] = tuple(chunk for chunk in chunks if chunk[0] in PNG_KEPT)
        found.unread += _unknown_chunks(chunks)
    elif name == "JPEG":
        _from_jpeg(data, found)
    elif name == "WEBP":
        found.parts["lossless"] = b"VP8L" in blocks.webp_chunks(data)
    elif name == "AVIF" and blocks.is_deep_avif(data):
        found.unread.append("more than 8 bits per channel (8 were read)")
    elif isinstance(info.get("comment"), bytes):
        found.parts["comments"] = (info["comment"],)
    resolution = info.get("dpi")
    if isinstance(resolution, tuple) and all(value > 1 for value in resolution):
        found.parts["dpi"] = (float(resolution[0]), float(resolution[1]))
    _repair(found, upright=name in _ALWAYS_UPRIGHT)
    return Metadata(**found.parts, unread=tuple(found.unread))


def _from_tiff(held: Decoded, data: bytes, found: _Found) -> None:
    page = held.header.page
    assert page is not None
    try:
        found.parts["exif"] = exif.of_tiff(data, page)
    except Exception:  # Pillow raises exceptions of any type on broken directories
        found.unread.append("broken EXIF")
    for part, tag in (("iptc", exif.IPTC), ("photoshop", exif.PHOTOSHOP), ("xmp", exif.XMP)):
        value = page.tags._tagdata.get(tag)  # the bytes as stored: IPTC is declared as numbers
        if value:
            found.parts[part] = value
    unit, x, y = (page.tags.get(tag) for tag in (296, 282, 283))
    if x and y and unit in (2, 3):
        inch = 2.54 if unit == 3 else 1.0
        found.parts["dpi"] = (float(x) * inch, float(y) * inch)


def _from_jpeg(data: bytes, found: _Found) -> None:
    comments, extended, photoshop = [], [], b""
    for marker, body in blocks.jpeg_segments(data):
        if marker == 0xFE:
            comments.append(body)
        elif body.startswith(blocks.EXTENDED_XMP):
            extended.append(body)
        elif body.startswith(blocks.PHOTOSHOP):
            photoshop += body.removeprefix(blocks.PHOTOSHOP)
        elif (unknown := blocks.unknown_segment(marker, body)) and unknown not in found.unread:
            found.unread.append(unknown)
    found.parts |= {
        "comments": tuple(comments),
        "extended_xmp": tuple(extended),
        "photoshop": photoshop or None,
    }


def _unknown_chunks(chunks: list[Chunk]) -> list[str]:
    """The unknown chunks, without those that describe only the old pixels."""
    of_pixels = (
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"sBIT",
        b"bKGD",
        b"hIST",
        b"sPLT",
        b"acTL",
        b"fcTL",
        b"fdAT",
    )
    others = {kind for kind, _ in chunks} - PNG_KEPT - _PNG_ELSEWHERE - set(of_pixels)
    return [f"PNG chunk {kind.decode('latin-1')}" for kind in sorted(others)]


def _repair(found: _Found, *, upright: bool) -> None:
    """Leaves a broken EXIF block out; sets the orientation that a decoder has applied to 1."""
    block = found.parts.get("exif")
    if isinstance(block, bytes) and not exif.is_whole(block):
        found.parts["exif"] = None
        found.unread.append("broken EXIF")
    if upright and isinstance(found.parts["xmp"], bytes):
        found.parts["xmp"] = blocks.upright_xmp(found.parts["xmp"])
