"""HEIC and camera raw files, by the packages of the extra `restora[photos]`: pillow-heif and rawpy."""

import io
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restora.photos.errors import DecodingError, MissingPackageError
from restora.photos.kinds import READ_ONLY, suffix_of

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_RAW_MAGIC = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb")
_CR2 = (b"II\x2a\x00", b"CR")


def readable() -> frozenset[str]:
    """Those of HEIF and RAW whose package is installed."""
    packages = {"HEIF": "pillow_heif", "RAW": "rawpy"}
    return frozenset(name for name, package in packages.items() if find_spec(package) is not None)


def is_heif(start: bytes) -> bool:
    """Whether a file with this start is HEIC or HEIF, and not AVIF, which Pillow reads."""
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIF_BRANDS:
        return False
    return b"avif" not in start[16 : int.from_bytes(start[:4], "big")]


def is_raw(start: bytes, name: str) -> bool:
    """Whether this is a camera's raw file: by its first bytes, or by its name where these are TIFF's."""
    if start.startswith(_RAW_MAGIC) or start[4:12] == b"ftypcrx ":
        return True
    if start[:4] == _CR2[0] and start[8:10] == _CR2[1]:
        return True
    return READ_ONLY.get(suffix_of(name)) == "RAW"


def open_heif(file: Any) -> Image.Image:
    """The file as a Pillow image, turned upright. Raises `DecodingError` without the package."""
    try:
        import pillow_heif
    except ImportError as error:
        raise _without("HEIC", "pillow-heif") from error
    pillow_heif.register_heif_opener()
    return Image.open(file, formats=["HEIF"])


def deep_heif(data: bytes) -> NDArray[np.uint16]:
    """(H,W,C) with alpha of a file with 10 or 12 bits, scaled to 16 bits."""
    import pillow_heif

    held = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    bits = int(held.info["bit_depth"])
    top = 2**bits - 1
    numbers = np.atleast_3d(np.asarray(held)).astype(np.uint32) >> (16 - bits)  # pillow-heif shifts them up
    return ((numbers * 65535 + top // 2) // top).astype(np.uint16)


def raw_size(data: bytes) -> tuple[int, int]:
    """(W, H) of the developed photo. Raises `DecodingError`, also where the package is not installed."""
    rawpy = _rawpy()
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            sizes = raw.sizes
            turned = sizes.flip in (5, 6)
            return (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)
    except rawpy.LibRawError as error:
        raise DecodingError(f"cannot be decoded: {_reason(error)}") from error


def decode_raw(data: bytes) -> NDArray[np.uint16]:
    """Developed with the camera's white balance, without auto-brightening: upright (H,W,3) uint16 sRGB."""
    rawpy = _rawpy()
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            return raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16)
    except rawpy.LibRawError as error:
        raise DecodingError(f"cannot be decoded: {_reason(error)}") from error


def _rawpy() -> ModuleType:
    try:
        import rawpy
    except ImportError as error:
        raise _without("RAW", "rawpy") from error
    return rawpy


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _without(what: str, package: str) -> MissingPackageError:
    return MissingPackageError(f"is {what}, which {package} reads: pip install 'restora[photos]'")
