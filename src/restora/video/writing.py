"""Video files, written by PyAV: restored frames encoded, all else of the clip copied as it was compressed.

H.264 in .mp4, .mov, .mkv and .avi, VP9 in .webm, both in 8 bits with colour at half the size, which every
player shows; FFV1, which loses nothing, in .mkv at quality 100. The scale of quality is that of JPEG: 95 by
default.

What the file cannot hold is left out and named in `lost`.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from restora.photos.kinds import VIDEO_FORMATS, suffix_of
from restora.video.colour import Coding
from restora.video.pixels import FULL, UNSPECIFIED, Tags, frame_of, is_unspecified, usual_matrix
from restora.video.reading import Clip, file_url, pyav, reason

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from restora.video.reading import CopiedPacket

QUALITY, LOSSLESS = 95, 100
_LONGEST_H264 = 16384
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "alpha_mode")
_STATISTICS = ("_STATISTICS", "BPS", "DURATION", "NUMBER_OF_")
"""Beginnings of what Matroska notes of a stream, which are not true of the new one."""
_PLAIN_KEYS = frozenset(
    (
        *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright"),
        *("description", "synopsis", "show", "episode_id", "network", "grouping", "lyrics", "track", "disc"),
        *("creation_time", "language", "handler_name", "timecode", "rotate"),
    )
)
"""Metadata that MP4 holds in boxes of their own, which all players read."""


@dataclass(frozen=True)
class Encoding:
    """An encoder of FFmpeg with its options, its pixels and what they mean, and what its sides divide by."""

    encoder: str
    format_name: str
    coding: Coding
    tags: Tags
    options: dict[str, str]
    multiple: int = 1


def encoding_for(
    suffix: str, quality: int, clip: Clip, *, height: int, width: int, channels: int
) -> tuple[Encoding, list[str]]:
    """The encoding of results of this size and number of channels, and what of the clip it cannot hold."""
    given = clip.coding
    kept, tags = given, clip.tags
    if given.matrix in ("rgb", "grey"):
        kept = Coding(usual_matrix(height, width), full=False)
        tags = tags.stating(kept)
    elif is_unspecified(tags) and given.matrix != usual_matrix(height, width):
        tags = tags.stating(given)  # or a player would take it for the other one, by its new size
    if kept.full:
        tags = replace(tags, range=FULL)
    if quality == LOSSLESS and suffix == ".mkv":
        return _lossless(kept, given, tags, channels)
    coding = replace(kept, bits=8, across=1, down=1, centred=False)
    lost = []
    if given.bits > 8:
        lost.append(f"{given.bits} bits per channel")
    if given.matrix == "rgb" or (given.matrix != "grey" and (given.across, given.down) != (1, 1)):
        lost.append("colour at more than half the size")
    if suffix == ".webm":
        speed = {"deadline": "good", "cpu-used": "4", "row-mt": "1", "b": "0"}
        return Encoding("libvpx-vp9", "yuv420p", coding, tags, {"crf": str(_crf_vp9(quality)), **speed}), lost
    if max(height, width) > _LONGEST_H264:
        raise ValueError(
            f"would become {width}x{height} pixels, and H.264 has at most {_LONGEST_H264} a side: name the "
            "output .webm"
        )
    options = {"crf": str(_crf(quality)), **({"bf": "0"} if suffix == ".avi" else {})}
    if height % 2 or width % 2:
        lost.append("an odd side (its last row or column is doubled; .webm keeps it)")
    return Encoding("libx264", "yuv420p", coding, tags, options, multiple=2), lost


def _lossless(kept: Coding, given: Coding, tags: Tags, channels: int) -> tuple[Encoding, list[str]]:
    """FFV1 in the clip's own pixel format, or where it has none such, without subsampling."""
    av = pyav()
    formats = {held.name for held in av.codec.Codec("ffv1", "w").video_formats or ()}
    depth = "" if given.bits == 8 else f"{given.bits}le"
    subsampling = {(2, 2): 410, (2, 0): 411, (1, 1): 420, (1, 0): 422, (0, 1): 440, (0, 0): 444}
    lost = [f"{given.bits} bits per channel"] if given.bits > 8 else []
    if given.matrix == "rgb":
        coding, name = replace(given, bits=8), "bgr0"
        return Encoding(
            "ffv1", name, coding, replace(tags, matrix=UNSPECIFIED, range=0), {"level": "3"}
        ), lost
    if given.matrix == "grey" and channels == 1:
        name, coding, tags = f"gray{depth}", given, replace(tags, range=FULL if given.full else 1)
    else:
        coding = replace(kept, bits=given.bits)
        name = f"yuv{subsampling[coding.across, coding.down]}p{depth}"
    if name in formats:
        return Encoding("ffv1", name, coding, tags, {"level": "3"}), []
    name = "gray" if coding.matrix == "grey" else "yuv444p"
    coding = replace(coding, bits=8, across=0, down=0)
    return Encoding("ffv1", name, coding, tags, {"level": "3"}), lost


def _crf(quality: int) -> int:
    """x264's constant rate factor: 16 at quality 95, and half a step for each of quality."""
    return max(0, min(51, round(16 + (95 - quality) / 2)))


def _crf_vp9(quality: int) -> int:
    return max(0, min(63, round(_crf(quality) * 63 / 51)))


class Writer:
    """Writes one clip to `draft`, as the container of `suffix`. Use it in a `with` block.

    All calls come from one thread. Raises ValueError for what the container cannot hold and cannot do
    without, and OSError where nothing can be written.
    """

    def __init__(
        self, draft: Path, suffix: str, clip: Clip, encoding: Encoding, *, size: tuple[int, int], strip: bool
    ) -> None:
        self.lost: list[str] = []
        self._clip, self._encoding, self._suffix, self._size = clip, encoding, suffix, size
        self._copies: dict[int, Stream] = {}
        self._last: int | None = None
        self._time_base = 1 / clip.rate if suffix == ".avi" else clip.time_base
        self._format = VIDEO_FORMATS[suffix]
        self._strip = strip
        self._container: OutputContainer = pyav().open(
            file_url(draft), "w", format=self._format, options=self._muxer_options()
        )
        try:
            self._stream = self._add_streams()
            self._add_metadata()
        except BaseException:
            with contextlib.suppress(Exception):
                self._container.close()
            raise

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with _writing():
                self._mux(self._stream.encode(None))
                self._container.close()
        else:
            with contextlib.suppress(Exception):
                self._container.close()

    def write(self, planes: list[Tensor], at: "VideoFrame") -> None:
        """Encodes a frame of numbers, to be shown when `at` was."""
        height, width = (side + side % self._encoding.multiple for side in self._size)
        frame = frame_of(planes, self._encoding.format_name, height, width)
        self._encoding.tags.put_on(frame)
        frame.pts, frame.time_base = self._time(at), self._time_base
        if at.duration and self._suffix != ".avi":
            frame.duration = at.duration
        with _writing():
            self._mux(self._stream.encode(frame))

    def copy(self, packet: "CopiedPacket") -> None:
        """Copies a packet of another stream, if its stream is copied."""
        av = pyav()
        stream = self._copies.get(packet.stream.index)
        if stream is None:
            return
        shift = round(self._clip.start / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.stream = stream
        try:
            with _writing():
                self._container.mux(packet)
        except ValueError as error:  # a broken time stamp, as of a damaged packet, which is left out
            if not isinstance(error.__cause__, av.ArgumentError | av.InvalidDataError):
                raise

    def _mux(self, packets: "list[Packet[VideoStream]]") -> None:
        for packet in packets:
            self._container.mux(packet)

    def _time(self, at: "VideoFrame") -> int:
        """The frame's time in units of the output's: later than the one before, also if the file says not."""
        clip, given = self._clip, at.pts
        if given is None:
            step = max(1, round(1 / clip.rate / clip.time_base))
            time = 0 if self._last is None else self._last + (1 if self._suffix == ".avi" else step)
        else:
            seconds = given * (at.time_base or clip.time_base) - clip.start
            time = round(seconds / self._time_base)
        if self._last is not None and time <= self._last:
            if self._suffix == ".avi" and given is not None:
                raise ValueError(
                    "has frames of unequal lengths, which AVI cannot hold: name the output .mp4 or .mkv"
                )
            time = self._last + 1
        self._last = time
        return time

    def _muxer_options(self) -> dict[str, str]:
        if self._format not in ("mp4", "mov"):
            return {}
        flags = "+faststart"
        if not self._strip and not set(self._clip.container.metadata) <= {*_PLAIN_KEYS, *_OF_THE_FILE}:
            flags += "+use_metadata_tags"
        return {"movflags": flags}

    def _add_streams(self) -> "VideoStream":
        """The streams of the clip in its order, without those that the container cannot hold."""
        made: VideoStream | None = None
        clip = self._clip
        for stream in clip.container.streams:
            if stream is clip.stream:
                made = self._add_video()
            elif stream.type == "video" and not _is_picture(stream):
                self.lost.append("a second video")
            elif not self._is_remade(stream):
                self._add_copy(stream)
        assert made is not None
        return made

    def _is_remade(self, stream: "Stream") -> bool:
        """Whether it is a track that a muxer makes itself, of a time code or of chapters."""
        if stream.type != "data":
            return False
        return "timecode" in stream.metadata or bool(self._clip.container.chapters())

    def _add_video(self) -> "VideoStream":
        clip, encoding = self._clip, self._encoding
        made = cast(
            "VideoStream",
            self._container.add_stream(encoding.encoder, rate=clip.rate, options=dict(encoding.options)),
        )
        context = made.codec_context
        context.height, context.width = (side + side % encoding.multiple for side in self._size)
        context.pix_fmt, context.time_base = encoding.format_name, self._time_base
        context.thread_count = torch.get_num_threads()
        encoding.tags.put_on(context)
        ratio = clip.stream.sample_aspect_ratio
        if ratio and ratio != 1:
            if self._suffix == ".webm":
                raise ValueError(
                    "has pixels that are not square, which is not written to .webm: name the output .mp4 or "
                    ".mkv"
                )
            context.sample_aspect_ratio = ratio
        if clip.matrix is not None:
            if self._format == "avi":
                raise ValueError(
                    "is turned when it is shown, which AVI cannot hold: name the output .mp4 or .mkv"
                )
            scale = self._size[0] // clip.first.height
            made.set_display_matrix(
                [number * (scale if at in (6, 7) else 1) for at, number in enumerate(clip.matrix)]
            )
        made.disposition = clip.stream.disposition
        return made

    def _add_copy(self, stream: "Stream") -> None:
        described = (
            self._strip and stream.type == "data"
        )  # such as places and movements, as cameras note them
        made = _copied(self._container, stream) if not described and self._holds(stream) else None
        if made is None:
            names = {"subtitle": "subtitles", "audio": "sound", "video": "a picture"}
            what = names.get(stream.type, stream.type)
            self.lost.append(f"{what} ({getattr(stream, 'name', None) or 'of an unknown format'})")
        else:
            made.disposition = stream.disposition
            self._copies[stream.index] = made

    def _holds(self, stream: "Stream") -> bool:
        """Whether the container's header can be written with this stream, by doing it."""
        av = pyav()
        if stream.type == "attachment" and self._suffix == ".webm":
            return False  # it would be dropped without an error
        if stream.type == "video" and self._format not in ("mp4", "mov"):
            return False  # a cover, which would become a second video
        try:
            with av.open(os.devnull, "w", format=self._format) as trial:
                _copied(trial, stream)
                trial.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        return True

    def _add_metadata(self) -> None:
        clip = self._clip
        made = {clip.stream.index: self._stream, **self._copies}
        for stream in clip.container.streams:
            if stream.index in made:
                held = {"language": stream.language} if self._strip and stream.language else {}
                made[stream.index].metadata.update(held if self._strip else _kept(stream.metadata))
        if self._strip:
            return
        self._container.metadata.update(_kept(clip.container.metadata))
        if chapters := clip.container.chapters():
            if self._format == "avi":
                self.lost.append("chapters")
            else:
                self._container.set_chapters(chapters)


def _copied(container: "OutputContainer", stream: "Stream") -> "Stream":
    """A stream for packets as they are."""
    return container.add_stream_from_template(stream, opaque=True)


def _is_picture(stream: "Stream") -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_FILE and not key.upper().startswith(_STATISTICS)
    }


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Turns FFmpeg's errors into ValueError, with an OSError as the cause where the disk is."""
    av = pyav()
    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(f"cannot be encoded or written: {reason(error)}") from error


def check_suffix(path: Path) -> str:
    """The suffix of an output. Raises ValueError for one that no video is written with."""
    suffix = suffix_of(path)
    if suffix not in VIDEO_FORMATS:
        raise ValueError(f"{path}: videos are written as {', '.join(f'*{held}' for held in VIDEO_FORMATS)}")
    return suffix
