"""Photo files with their metadata.

Photos are read into pixels and metadata, and written back in their own format with nothing lost. Both work on
a file, or on its bytes alone:

    photo = open_photo(data, name)         # look(data, name) alone says how large it is, before it is decoded
    data = photo.replaced(pixels).encode("JPEG")

`pixels` are as `decoding.py` finds them, grey or RGB, 8 or 16 bits, alpha apart: an EXIF orientation is not
applied, the tag is kept with the pixels.

Legend: H height, W width, C channels (1 or 3).
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from restora.photos import exif
from restora.photos.blocks import upright_xmp
from restora.photos.decoding import Pixels, decode, upright
from restora.photos.header import Header, check_file, decoding_errors, look
from restora.photos.kinds import FORMATS
from restora.photos.metadata import PNG_COLOUR, Metadata, metadata_of

__all__ = ["FORMATS", "Header", "Metadata", "Photo", "look", "open_photo", "read_photo"]


@dataclass
class Photo:
    """`pixels` (H,W,C) uint8 or uint16, `alpha` (H,W) of the same type or None."""

    pixels: Pixels
    alpha: Pixels | None
    metadata: Metadata = field(default_factory=Metadata)
    format_name: str = ""
    """The format that it was read from."""
    frames: int = 1
    """The number of frames in its file; this is the first."""

    @property
    def white(self) -> int:
        """The pixel value of 1.0: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def replaced(self, pixels: Pixels, alpha: Pixels | None = None) -> "Photo":
        """This photo with other pixels, its metadata and depth kept."""
        assert pixels.dtype == self.pixels.dtype
        return replace(self, pixels=pixels, alpha=alpha)

    def upright(self) -> "Photo":
        """Turned upright by its EXIF orientation, which is then reset."""
        turn = exif.orientation(self.metadata.exif)
        if turn == 1:
            return self
        pixels = upright(self.pixels, turn)
        alpha = None if self.alpha is None else upright(self.alpha, turn)
        block, xmp = self.metadata.exif, self.metadata.xmp
        assert block is not None
        metadata = replace(
            self.metadata, exif=exif.upright(block), xmp=None if xmp is None else upright_xmp(xmp)
        )
        return replace(self, pixels=pixels, alpha=alpha, metadata=metadata)

    def turned_like(self, other: "Photo") -> "Photo":
        """This picture of the upright `other`, in the orientation of its stored pixels."""
        shown, turn = self.upright(), exif.orientation(other.metadata.exif)
        back = {6: 8, 8: 6}.get(turn, turn)
        return shown.replaced(
            upright(shown.pixels, back), None if shown.alpha is None else upright(shown.alpha, back)
        )

    def without_metadata(self) -> "Photo":
        """The picture alone: upright, with its colour information (profile, gamma) as only metadata."""
        turned, held = self.upright(), self.metadata
        colour = tuple(chunk for chunk in held.png_chunks if chunk[0] in PNG_COLOUR)
        return replace(turned, metadata=Metadata(icc=held.icc, png_chunks=colour, lossless=held.lossless))

    def encode(self, format_name: str, *, quality: int | None = None) -> bytes:
        """The bytes of a file. Raises ValueError where the format cannot hold the photo."""
        from restora.photos.encoding import encode

        return encode(self, format_name, quality=quality)


def open_photo(data: bytes, name: str | os.PathLike[str] = "", *, limit: int | None = None) -> Photo:
    """The photo whose file is `data`; `name` distinguishes camera raw files.

    Raises `DecodingError` that says why it cannot be read, before decoding if it has more than `limit`
    pixels (without one: RESTORA_MAX_MEGAPIXELS).
    """
    held = decode(data, name, limit=limit)
    with decoding_errors():
        metadata = metadata_of(held, data)
    return Photo(held.pixels, held.alpha, metadata, held.header.format_name, held.header.frames)


def read_photo(path: Path) -> Photo:
    """Raises `DecodingError` that says why the file cannot be read; the message does not repeat the path."""
    check_file(path)
    with decoding_errors():
        data = path.read_bytes()
    return open_photo(data, path)
