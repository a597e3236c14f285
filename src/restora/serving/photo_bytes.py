"""Photos as files without names: inspected, read, written, stored as pixels. Errors are a `Problem`."""

import io
from typing import IO

import numpy as np
from PIL import Image

from restora.photos import extra_formats
from restora.photos.decoding import Pixels, rounded_to_8_bits
from restora.photos.encoding import refuse
from restora.photos.errors import DecodingError, MissingPackageError
from restora.photos.files import FORMATS, Header, Photo, open_photo
from restora.photos.files import look as look_at
from restora.photos.kinds import LOSSY
from restora.serving.problems import Problem

WRITABLE = {name.lower(): name for name in FORMATS.values()}
READABLE = frozenset((*FORMATS.values(), "GIF", "JPEG2000", "HEIF", "RAW"))
"""Pillow opens more formats, some with other programs, which is unsafe for untrusted files."""
MEDIA_TYPES = {
    **{name: f"image/{name.lower()}" for name in FORMATS.values()},
    "PPM": "image/x-portable-anymap",
}
SUFFIXES = {name: suffix for suffix, name in reversed(FORMATS.items())}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"RIFF")
COPY_AGAIN = "copy it again from where it came from"
_ANY = 1 << 62
"""No limit here: `uploads.py` limits the size, because it knows the size of the result."""


def look(file: IO[bytes]) -> Header:
    """The header of one photo. Raises Problem if it is no photo of a format that the server reads."""
    file.seek(0)
    try:
        header = look_at(file, limit=_ANY)  # type: ignore[arg-type]
    except DecodingError as error:
        raise _problem(file, error) from error
    if header.format_name not in READABLE:
        raise _problem(file, DecodingError(f"is not a photo ({header.format_name})"))
    return header


def _problem(file: IO[bytes], error: DecodingError) -> Problem:
    file.seek(0)
    reason = str(error)
    known = ", ".join(sorted(READABLE - {"HEIF", "RAW"} | extra_formats.readable()))
    if isinstance(error, MissingPackageError):
        what, fix = reason.partition(",")[0], reason.rpartition(": ")[2]
        detail = f"the photo {what}, which this server cannot read: save it as JPEG and try again"
        return Problem(415, "not-a-photo", f"{detail}, or start the server with the package ({fix})")
    if reason.startswith("is not a photo") and not file.read(12).startswith(SIGNATURES):
        detail = f"the file is not a photo in a supported format ({known}): save it as JPEG or PNG first"
        return Problem(415, "not-a-photo", detail)
    if reason.startswith("is not a photo"):
        return Problem(422, "bad-photo", f"the photo is damaged, its header cannot be read: {COPY_AGAIN}")
    return Problem(422, "bad-photo", _sentence(reason))


def _sentence(reason: str) -> str:
    damage, is_damaged, cause = reason.partition("cannot be decoded: ")
    if damage or not is_damaged:
        return f"the photo {reason}"
    return f"the photo cannot be opened, it may be damaged or incomplete ({cause}): {COPY_AGAIN}"


def read(file: IO[bytes]) -> Photo:
    """The photo. Raises a Problem with the reason if it cannot be read."""
    file.seek(0)
    try:
        return open_photo(file.read(), limit=_ANY)
    except DecodingError as error:
        raise Problem(422, "bad-photo", _sentence(str(error))) from error


def format_of_result(header: Header, wanted: str | None) -> str:
    """The requested format, else the photo's own, or PNG if that cannot be written."""
    return wanted or (header.format_name if header.format_name in MEDIA_TYPES else "PNG")


def check_quality(quality: int | None, format_name: str) -> None:
    """Raises Problem for a quality of a format that has none."""
    if quality is not None and format_name not in LOSSY:
        detail = f"`quality` has no effect on a {format_name}, only on {', '.join(LOSSY)}"
        raise Problem(422, "bad-option", f"{detail}: leave it out, or send format=jpeg")


def check_format(photo: Photo, format_name: str, *, scale: int = 1) -> None:
    """Raises Problem if the format cannot hold the photo, enlarged by `scale`."""
    try:
        refuse(photo, format_name, scale=scale)
    except ValueError as error:
        raise Problem(422, "bad-option", f"the result {error}") from error


def write(photo: Photo, format_name: str, *, quality: int | None, keep_metadata: bool) -> bytes:
    """The bytes of a file. Raises Problem if the format cannot hold the photo."""
    try:
        return (photo if keep_metadata else photo.without_metadata()).encode(format_name, quality=quality)
    except ValueError as error:
        raise Problem(422, "bad-option", f"the result {error}") from error


def preview(photo: Photo) -> bytes:
    """A PNG that any browser shows: 8 bits, upright."""
    plain = photo.upright()
    eight: Pixels = rounded_to_8_bits(plain.pixels)
    if plain.alpha is not None:
        eight = np.concatenate([eight, rounded_to_8_bits(plain.alpha)[..., None]], axis=-1)
    out = io.BytesIO()
    image = Image.fromarray(eight.squeeze(-1) if eight.shape[2] == 1 else eight)
    image.save(out, format="PNG", compress_level=1, icc_profile=photo.metadata.icc)
    return out.getvalue()


def store_pixels(photo: Photo, file: IO[bytes]) -> int:
    """Writes pixels and alpha unchanged; returns the number of bytes."""
    file.seek(0)
    np.save(file, photo.pixels, allow_pickle=False)
    if photo.alpha is not None:
        np.save(file, photo.alpha, allow_pickle=False)
    file.flush()
    return file.tell()


def load_pixels(file: IO[bytes], like: Photo) -> Photo:
    """The photo that `store_pixels` wrote, with the metadata of `like`."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    pixels = np.load(file, allow_pickle=False)
    alpha = np.load(file, allow_pickle=False) if file.tell() < end else None
    return like.replaced(pixels, alpha)
