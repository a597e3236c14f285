"""Photos as files without names: looked at, read, written, kept as pixels."""

import io
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from restora.photos.decoding import ORIENTATION, Pixels, decode, decoding_errors, rounded_to_8_bits, upright
from restora.photos.encoding import encode
from restora.photos.files import FORMATS, Metadata, Photo, _metadata
from restora.serving.problems import Problem

READABLE = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"RIFF")
WRITABLE = {"jpeg": "JPEG", "png": "PNG", "tiff": "TIFF", "webp": "WEBP", "bmp": "BMP", "ppm": "PPM"}
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "PPM": "image/x-portable-anymap",
}
SUFFIXES = {name: suffix for suffix, name in reversed(FORMATS.items())}


@dataclass(frozen=True)
class Header:
    """What the first bytes of a photo say, without its pixels being decoded."""

    format: str
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


def look(file: IO[bytes]) -> Header:
    """Raises Problem for what is no photo of a kind that the server reads."""
    file.seek(0)
    Image.init()  # or Pillow does not know all of the names
    known = ", ".join(sorted(WRITABLE))
    try:
        image = Image.open(file, formats=READABLE)
    except Image.DecompressionBombError as error:  # Pillow's own limit, where the server has not lifted it
        raise Problem(413, "too-large", f"the photo has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        file.seek(0)
        if file.read(12).startswith(SIGNATURES):
            raise Problem(422, "bad-photo", "the photo is damaged: its header cannot be read") from error
        raise Problem(415, "not-a-photo", f"this is not a photo that can be read ({known})") from error
    except Exception as error:  # decoders fail in every way on broken files
        raise Problem(422, "bad-photo", f"the photo is damaged: {error}") from error
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG with previews behind it
        raise Problem(422, "bad-photo", f"the file holds {frames} pages or frames: send one photo of them")
    width, height = image.size
    if width < 1 or height < 1:
        raise Problem(422, "bad-photo", f"the photo has no pixels ({width}x{height})")
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return Header(name, width, height)


def read(file: IO[bytes]) -> Photo:
    """Raises Problem that says why the photo cannot be read."""
    file.seek(0)
    data = file.read()
    try:
        with decoding_errors():
            held = decode(data)
            return Photo(held.pixels, held.alpha, _metadata(held, data))
    except (MemoryError, Problem):
        raise
    except Exception as error:  # decoders fail in every way on broken files: IndexError, struct.error, …
        reason = str(error) or type(error).__name__
        raise Problem(422, "bad-photo", f"the photo cannot be read: it {reason}") from error


def write(photo: Photo, format_name: str, *, keep_metadata: bool = True) -> bytes:
    """The bytes of a file. Raises Problem where the format cannot hold the photo."""
    if not keep_metadata:
        photo = stripped(photo)
    try:
        return encode(photo, format_name)
    except ValueError as error:
        raise Problem(422, "bad-option", f"the result {error}") from error


def stripped(photo: Photo) -> Photo:
    """Turned upright, with nothing but its colour profile and how it was compressed."""
    turned = turned_upright(photo)
    held = photo.metadata
    chunks = [chunk for chunk in held.png_chunks if chunk[0] in (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP")]
    turned.metadata = Metadata(icc=held.icc, png_chunks=chunks, lossless=held.lossless)
    return turned


def turned_upright(photo: Photo) -> Photo:
    """Pixels as they are looked at; the metadata is left as it was."""
    turn = orientation(photo)
    alpha = photo.alpha
    if alpha is not None:
        alpha = _turned(alpha[..., None], turn)[..., 0]
    return Photo(_turned(photo.pixels, turn), alpha, photo.metadata)


def _turned(pixels: Pixels, turn: int) -> Pixels:
    return cast(Pixels, np.ascontiguousarray(upright(cast(Any, pixels), turn)))


def preview(photo: Photo) -> bytes:
    """A PNG that any browser shows: 8 bits, upright."""
    plain = turned_upright(photo)
    alpha = None if plain.alpha is None else rounded_to_8_bits(plain.alpha)
    eight: Pixels = rounded_to_8_bits(plain.pixels)
    values = eight if alpha is None else np.concatenate([eight, alpha[..., None]], axis=-1)
    out = io.BytesIO()
    image = Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values)
    image.save(out, format="PNG", compress_level=1, icc_profile=photo.metadata.icc)
    return out.getvalue()


def orientation(photo: Photo) -> int:
    """EXIF orientation, 1 to 8."""
    if photo.metadata.exif is None:
        return 1
    held = Image.Exif()
    try:
        held.load(b"Exif\x00\x00" + photo.metadata.exif)
        turn = int(held.get(ORIENTATION, 1))
    except Exception:  # a damaged block says nothing
        return 1
    return turn if 1 <= turn <= 8 else 1


def as_stored(mask: Photo, photo: Photo) -> Photo:
    """A mask that was painted on the upright photo, turned to lie as the photo's pixels are stored."""
    turn = orientation(photo)
    back = {6: 8, 8: 6}.get(turn, turn)
    return Photo(_turned(mask.pixels, back), None, mask.metadata)


def store_pixels(photo: Photo, file: IO[bytes]) -> int:
    """Writes pixels and alpha as they are; returns the number of bytes."""
    file.seek(0)
    np.save(file, photo.pixels, allow_pickle=False)
    if photo.alpha is not None:
        np.save(file, photo.alpha, allow_pickle=False)
    file.flush()
    return file.tell()


def load_pixels(file: IO[bytes], metadata: Metadata) -> Photo:
    """What `store_pixels` wrote."""
    file.seek(0, io.SEEK_END)
    end = file.tell()
    file.seek(0)
    pixels = np.load(file, allow_pickle=False)
    alpha = np.load(file, allow_pickle=False) if file.tell() < end else None
    return Photo(pixels, alpha, metadata)
