"""Frames of PyAV and planes of numbers: the pixel formats that are read, and what their numbers stand for.

Formats that only lay out planes in another way (nv12, yuyv422, p010le) are laid out anew, which changes no
number. Refused are formats with transparency, and those whose numbers stand for something else: HDR (PQ, HLG,
Dolby Vision), other matrices, mosaics of sensors.

Note: where a file does not say which matrix its numbers are of, it is BT.709 from 720 rows or 1280 columns on
and BT.601 below, as players take it.
"""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from restora.photos.errors import DecodingError
from restora.video.colour import Coding, Matrix

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

UNSPECIFIED, LIMITED, FULL = 2, 1, 2
"""The codes of an unspecified matrix, curve or primaries, and of the ranges (0 is unspecified), H.273's."""
_MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
}
_CODES = {"bt709": 1, "bt601": 6}
_UNSPECIFIED_MATRICES = (0, UNSPECIFIED, 3)
"""With 0, for RGB, files say nothing about Y'CbCr."""
_HDR = {16: "PQ", 18: "HLG"}
_PLANAR = re.compile(r"yuv(j?)(410|411|420|422|440|444)p(9|10|12|14|16)?(le)?")
_GREY = re.compile(r"gray(9|10|12|14|16)?(le)?")
_SUBSAMPLED = {"410": (2, 2), "411": (2, 0), "420": (1, 1), "422": (1, 0), "440": (0, 1), "444": (0, 0)}
_LAID_OUT = {
    **dict.fromkeys(("nv12", "nv21"), "yuv420p"),
    **dict.fromkeys(("nv16", "yuyv422", "uyvy422", "yvyu422"), "yuv422p"),
    **dict.fromkeys(("nv24", "nv42"), "yuv444p"),
    "p010le": "yuv420p10le",
    "p012le": "yuv420p12le",
    "p016le": "yuv420p16le",
    "p210le": "yuv422p10le",
    "p216le": "yuv422p16le",
    "p410le": "yuv444p10le",
    "p416le": "yuv444p16le",
    "uyyvyy411": "yuv411p",
}
"""Formats that are planar ones in another layout."""
_CENTRED = ("mjpeg", "mpeg1video")
_LIMITED_GREY = ("h264", "hevc", "av1", "vp9")
"""Codecs whose grey pictures are of limited range unless they say otherwise."""


@dataclass(frozen=True)
class Tags:
    """What a file says of its colours, as the codes of ITU-T H.273, to be written as it was read."""

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    curve: int = UNSPECIFIED

    def put_on(self, to: "VideoFrame | VideoCodecContext") -> None:
        to.colorspace, to.color_range = self.matrix, self.range
        to.color_primaries, to.color_trc = self.primaries, self.curve

    def stating(self, coding: Coding) -> "Tags":
        """With the matrix and range that the numbers are of."""
        return replace(self, matrix=_CODES[coding.matrix], range=FULL if coding.full else LIMITED)


def tags_of(frame: "VideoFrame") -> Tags:
    return Tags(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)


def coding_of(frame: "VideoFrame", codec: str) -> Coding:
    """What the numbers of a frame stand for.

    Raises `DecodingError` for a frame that cannot be restored.
    """
    name = frame.format.name
    _check(frame)
    if frame.format.is_rgb or frame.format.has_palette:
        deep = max(component.bits for component in frame.format.components) > 8
        return Coding("rgb", full=True, bits=16 if deep else 8)
    if (grey := _GREY.fullmatch(name)) is not None:
        full = frame.color_range == FULL or (not frame.color_range and codec not in _LIMITED_GREY)
        return Coding("grey", full=full, bits=int(grey[1] or 8))
    planar = _PLANAR.fullmatch(_LAID_OUT.get(name, name))
    if planar is None:
        raise DecodingError(
            f"stores its pixels as {name}, which is not read: {_converted('-pix_fmt yuv420p')}"
        )
    across, down = _SUBSAMPLED[planar[2]]
    return Coding(
        _matrix(frame),
        full=frame.color_range == FULL or bool(planar[1]),
        bits=int(planar[3] or 8),
        across=across,
        down=down,
        centred=codec in _CENTRED,
    )


def usual_matrix(height: int, width: int) -> Matrix:
    """The matrix of a frame of this size that names none."""
    return "bt709" if height >= 720 or width >= 1280 else "bt601"


def is_unspecified(tags: Tags) -> bool:
    return tags.matrix in _UNSPECIFIED_MATRICES


def _matrix(frame: "VideoFrame") -> Matrix:
    if frame.colorspace in _UNSPECIFIED_MATRICES:
        return usual_matrix(frame.height, frame.width)
    if frame.colorspace not in _MATRICES:
        raise DecodingError(
            f"has colours of a kind that is not read (matrix {frame.colorspace} of ITU-T H.273): "
            f"{_converted('-vf scale=out_color_matrix=bt709 -colorspace bt709')}"
        )
    return _MATRICES[frame.colorspace]


def _check(frame: "VideoFrame") -> None:
    """Raises `DecodingError` for HDR and transparency."""
    hdr = _HDR.get(frame.color_trc)
    if hdr is None and (side_data(frame, "DOVI_METADATA") or side_data(frame, "DOVI_RPU_BUFFER")):
        hdr = "Dolby Vision"
    if hdr is not None:
        raise DecodingError(
            f"is HDR ({hdr}), and networks are trained on pictures of standard range: convert it to SDR in "
            "BT.709 first, by a program that maps its brightness"
        )
    if not frame.format.has_palette and any(component.is_alpha for component in frame.format.components):
        raise DecodingError(f"is transparent ({frame.format.name}): {_converted('-pix_fmt yuv420p')}")


def side_data(frame: "VideoFrame", kind: str) -> bytes | None:
    """What comes with a frame beside its pixels, by PyAV's name of the kind."""
    from av.sidedata.sidedata import SideDataContainer

    found = cast(SideDataContainer, frame.side_data)
    try:
        return bytes(found[kind])
    except KeyError:
        return None


def _converted(how: str) -> str:
    return f"convert it first, such as with ffmpeg -i VIDEO {how} CONVERTED.mkv"


def planes_of(frame: "VideoFrame") -> list[Tensor]:
    """The numbers of a frame that `coding_of` knows: uint8 or int32 planes, R, G, B or in their own order."""
    name = frame.format.name
    if frame.format.is_rgb or frame.format.has_palette:
        deep = max(component.bits for component in frame.format.components) > 8
        pixels = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        return [_tensor(pixels[..., channel]) for channel in range(3)]
    if name in _LAID_OUT:
        frame = frame.reformat(format=_LAID_OUT[name])
    return [_tensor(_numbers(frame, number)) for number in range(len(frame.planes))]


def frame_of(planes: list[Tensor], format_name: str, height: int, width: int) -> "VideoFrame":
    """A frame of numbers (h,w), which are repeated to the right and below where the frame is larger."""
    import av

    if format_name == "bgr0":
        red, green, blue = (plane.cpu().numpy().astype(np.uint8) for plane in planes)
        pixels = np.stack([blue, green, red, np.full_like(red, 255)], axis=-1)
        return av.VideoFrame.from_ndarray(pixels, format="bgra").reformat(format="bgr0")
    frame = av.VideoFrame(width, height, format_name)
    for number, plane in enumerate(planes):
        into = _numbers(frame, number)
        values = plane.cpu().numpy()
        below, right = (whole - part for whole, part in zip(into.shape, values.shape, strict=True))
        if below or right:
            values = np.pad(values, ((0, below), (0, right)), mode="edge")
        into[...] = values
    return frame


def _numbers(frame: "VideoFrame", number: int) -> "np.ndarray[tuple[int, int], np.dtype[np.unsignedinteger]]":
    """(h,w) of a plane, in the frame's own memory."""
    plane = frame.planes[number]
    deep = frame.format.components[number].bits > 8
    rows = np.frombuffer(memoryview(plane), dtype="<u2" if deep else np.uint8).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _tensor(numbers: "np.ndarray[Any, np.dtype[Any]]") -> Tensor:
    return torch.from_numpy(numbers.astype(np.uint8 if numbers.dtype == np.uint8 else np.int32))


def codec_name(context: "CodecContext | None") -> str:
    """The name of the format of compression, such as h264; empty where nothing decodes it."""
    return "" if context is None else context.codec.canonical_name
