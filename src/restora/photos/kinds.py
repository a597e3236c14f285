"""The kind of a file by its name, and the limit on pixels, the same for every command.

The name decides what a file is taken for; its actual format is found when its bytes are read (`header.py`),
so that a JPEG called `.png` is read, and a text file called `.jpg` is reported as not being a photo.
"""

import os
from typing import Literal

from restora.photos.errors import DataError

Kind = Literal["photo", "unreadable", "video", "other"]

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
}
"""Extensions of the formats that are read and written."""
FORMAT_SUFFIXES = {
    "jpg": ".jpg",
    "jpeg": ".jpg",
    "png": ".png",
    "tif": ".tif",
    "tiff": ".tif",
    "webp": ".webp",
    "avif": ".avif",
    "bmp": ".bmp",
    "ppm": ".ppm",
}
"""The names of formats on a command line, and the extensions of their files."""
LOSSY = ("JPEG", "WEBP", "AVIF")
"""Formats with a quality."""
READ_ONLY = {
    ".gif": "GIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".jpx": "JPEG2000",
    ".mpo": "MPO",
    ".pbm": "PBM",
    ".heic": "HEIC",
    ".heif": "HEIF",
    ".hif": "HEIF",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf"), "RAW"),
    **dict.fromkeys((".rw2", ".pef", ".srw", ".x3f", ".erf", ".mrw", ".kdc", ".dcr", ".mef", ".mos"), "RAW"),
    **dict.fromkeys((".iiq", ".3fr"), "RAW"),
}
"""Extensions of the formats that are only read, HEIC and RAW by the packages of the extra `restora[photos]`.
"""
READABLE = FORMATS | READ_ONLY
UNREADABLE = frozenset(
    (
        *(
            ".jxl",
            ".exr",
            ".hdr",
            ".pfm",
            ".psd",
            ".psb",
            ".xcf",
            ".svg",
            ".eps",
            ".tga",
            ".ico",
            ".jxr",
            ".wdp",
        ),
        *(".dds", ".fits", ".fit", ".qoi"),
    )
)
"""Extensions of picture formats that are not read here."""
VIDEOS = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts"),
        *(".3gp", ".ogv", ".vob", ".y4m"),
    )
)
VIDEO_FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
}
"""Extensions of videos that are written, and FFmpeg's names of their containers; the others are only read."""
VIDEO_SUFFIXES = {suffix[1:]: suffix for suffix in (".mp4", ".mov", ".mkv", ".webm", ".avi")}
"""The names of containers on a command line, and the extensions of their files."""
LIMIT_VARIABLE = "RESTORA_MAX_MEGAPIXELS"
RAISE_LIMIT = f"set {LIMIT_VARIABLE} to raise it"
"""The fix in the message about a photo that is too large."""
MEGAPIXELS = 500.0
"""The default limit: a photo of this size takes 12 GB as the float32 input and output of a network. It stops
small files whose headers claim sizes that would exhaust memory."""


def suffix_of(name: str | os.PathLike[str]) -> str:
    """The file extension in lower case, with its dot."""
    return os.path.splitext(os.fspath(name))[1].lower()


def kind(name: str | os.PathLike[str]) -> Kind:
    """What a file of this name is taken for; hidden files are `other`."""
    if os.path.basename(os.fspath(name)).startswith("."):
        return "other"
    suffix = suffix_of(name)
    if suffix in READABLE:
        return "photo"
    return "video" if suffix in VIDEOS else "unreadable" if suffix in UNREADABLE else "other"


def why_not(name: str | os.PathLike[str]) -> str:
    """Why a file that is not a `photo` by its name is not read."""
    suffix = suffix_of(name)
    match kind(name):
        case "video":
            return (
                f"is a video ({suffix}), not a photo: `restora restore [MODEL] VIDEO OUTPUT` restores it on "
                "the command line; for photos of its frames, ffmpeg -i VIDEO FOLDER/%06d.png"
            )
        case "unreadable":
            return f"is a picture of a format that cannot be read ({suffix}): convert it to PNG or TIFF first"
    return f"is not a photo by its name ({suffix or 'no suffix'})"


def pixel_limit() -> int:
    """The largest number of pixels of a photo that any command reads: RESTORA_MAX_MEGAPIXELS.

    Raises `DataError` where the variable is not a positive number.
    """
    set_to = os.environ.get(LIMIT_VARIABLE, "")
    try:
        megapixels = float(set_to) if set_to else MEGAPIXELS
    except ValueError:
        megapixels = -1.0
    if not 0 < megapixels < float("inf"):
        raise DataError(f"{LIMIT_VARIABLE} is a number of megapixels above 0, got {set_to!r}")
    return round(megapixels * 1e6)


def check_size(width: int, height: int, limit: int | None = None) -> None:
    """Raises `DecodingError` for a photo of more pixels than the limit, before anything is decoded."""
    from restora.photos.errors import DecodingError

    limit = pixel_limit() if limit is None else limit
    if width < 1 or height < 1:
        raise DecodingError(f"has no pixels: its header says {width}x{height}")
    if width * height > limit:
        raise DecodingError(
            f"is too large: {width}x{height} are {width * height / 1e6:.1f} megapixels, the limit is "
            f"{limit / 1e6:g} ({RAISE_LIMIT})"
        )
