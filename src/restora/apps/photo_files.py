"""Photos as people have them: read into pixels and metadata, written back in their own format with nothing
lost.

`read_photo` gives pixels as they are stored (an EXIF orientation is not applied, the tag is kept with the
pixels), grey or RGB, 8 or 16 bits, alpha apart. What surprises: palettes become RGB; CMYK becomes sRGB
through the file's own profile, because no network works in CMYK; Pillow itself turns TIFF files upright and
takes their orientation tag away.

Legend: H height, W width, C channels (1 or 3).
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

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

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_TYPE, PNG_GREY_WITH_ALPHA = 25, 4
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

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


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
    try:
        with Image.open(io.BytesIO(data)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with previews behind the photo
                raise ValueError(f"holds {frames} pages or frames: split it into single photos first")
            deep = _is_16_bit(image)  # before load, which forgets how the pixels are stored
            image.load()
            metadata = _metadata(image, data)
            if deep:
                pixels, alpha = _decode_16_bit(data, image)
            else:
                pixels, alpha = _decode_8_bit(image, metadata)
    except UnidentifiedImageError as error:
        raise ValueError("is not a photo, or of a kind that cannot be read") from error
    except (OSError, SyntaxError, struct.error, zlib.error, cv2.error, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error
    return Photo(pixels, alpha, metadata)


def _is_16_bit(image: Image.Image) -> bool:
    """Whether a channel has 16 bits. Raises ValueError for deeper or floating-point files."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(258, (1,)))
        if bits > 16 or 3 in tags.get(339, (1,)):
            raise ValueError("has more than 16 bits per channel: convert it to 16 bits first")
        return bits > 8
    if image.mode in ("I", "F"):
        raise ValueError("has more than 16 bits per channel: convert it to 16 bits first")
    tiles = getattr(image, "tile", None)  # how the file stores the pixels: (codec, extents, offset, raw mode)
    raw_mode = tiles[0][3] if tiles else ""
    return image.mode.startswith("I;16") or (isinstance(raw_mode, str) and raw_mode.endswith(";16B"))


def _decode_16_bit(data: bytes, image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Pillow has no 16-bit colour, so OpenCV decodes: (H,W,C) uint16 and alpha."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError(
            "is a 16-bit photo of a kind that cannot be read: convert it to 16-bit grey or RGB first"
        )
    values = np.atleast_3d(decoded).astype(np.uint16, copy=False)
    channels = values.shape[2]
    alpha = values[..., -1] if channels in (2, 4) else None
    grey = channels < 3 or (image.format == "PNG" and data[PNG_COLOUR_TYPE] == PNG_GREY_WITH_ALPHA)
    pixels = values[..., :1] if grey else values[..., 2::-1]
    key = image.info.get("transparency")
    if alpha is None and key is not None:
        alpha = np.where((pixels == np.asarray(key)).all(axis=-1), 0, 65535).astype(np.uint16)
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)


def _decode_8_bit(image: Image.Image, metadata: Metadata) -> tuple[Pixels, Pixels | None]:
    """Any 8-bit mode as grey or RGB (H,W,C) uint8 and alpha."""
    if image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image, metadata)
    keyed = image.mode.endswith(("A", "a")) or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    values = np.asarray(image.convert(("LA" if keyed else "L") if grey else ("RGBA" if keyed else "RGB")))
    values = np.atleast_3d(values)
    if not keyed:
        return np.array(values), None
    return np.array(values[..., :-1]), np.array(values[..., -1])


def _to_srgb(image: Image.Image, metadata: Metadata) -> Image.Image:
    """CMYK or Lab -> sRGB, through the file's profile where it has one (which then no longer applies)."""
    profile, metadata.icc = metadata.icc, None
    srgb = ImageCms.createProfile("sRGB")
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profile is not None:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")
    assert converted is not None
    metadata.icc = ImageCms.ImageCmsProfile(srgb).tobytes()
    return converted


def _metadata(image: Image.Image, data: bytes) -> Metadata:
    """What the loaded `image`, whose file is `data`, says about itself."""
    info = image.info
    made = Metadata(icc=info.get("icc_profile"), xmp=info.get("xmp"), comment=info.get("comment"))
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


def write_file(path: Path, data: bytes) -> None:
    """Write all of `data` to `path` or leave `path` as it was; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
