"""Video files, read by PyAV (the extra `restora[video]`): what they hold, frame by frame.

Enters: a path. Leaves: a `Header`, or an open `Clip` whose frames are decoded one by one and whose packets of
sound, subtitles and other streams are handed on as they are.

Note: only containers of videos and only local files are opened. FFmpeg would also take a text file by the
name of a video for a playlist, and open what it lists.
"""

import contextlib
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from restora.photos.errors import DecodingError, MissingPackageError
from restora.photos.header import check_file
from restora.photos.kinds import check_size
from restora.video.colour import Coding
from restora.video.pixels import Tags, codec_name, coding_of, side_data, tags_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    CopiedPacket = Packet[Stream]

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,yuv4mpegpipe,m4v"
_PROGRESSIVE = (0, 1)
"""Field orders: unknown and progressive."""
_PROBED = 25
"""Frames whose flag of interlacing is looked at before the work starts."""
_SHIFTED = ("mpegts", "mpeg", "mpegvideo")
"""Containers whose clock starts anywhere."""
_STATED = ("matroska", "flv")
"""Containers whose header says how long they are; FFmpeg guesses the length of others from the file's."""


def pyav() -> ModuleType:
    """Raises `MissingPackageError` where PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("is a video, which PyAV reads: pip install 'restora[video]'") from error
    return av


@dataclass(frozen=True)
class Header:
    """`frames` is what the file says or its length implies, 0 if unknown; `rate` is per second."""

    width: int
    height: int
    frames: int
    rate: Fraction


def look(path: Path) -> Header:
    """The header of a video, after its first frames have been decoded.

    Raises `DecodingError` for a file that cannot be restored: no video, damaged, encrypted, interlaced, HDR,
    transparent, or of more pixels than RESTORA_MAX_MEGAPIXELS.
    """
    with Clip(path) as clip:
        for number, frame in enumerate(clip.frames()):
            if frame.interlaced_frame:
                raise DecodingError(_interlaced(path))
            if number + 1 >= _PROBED:
                break
        return clip.header


class Clip:
    """A video whose streams are read once. Use it in a `with` block; raises `DecodingError` as `look` does.

    `first` is the first frame, which `frames` gives again. `damaged` counts the packets that could not be
    decoded and the frames with faults, `fault` says why reading ended early, `reached` is the time in seconds
    at which the last packet of any stream ends; all are complete once `frames` has ended. `stated` is when it
    should be, in seconds by the file's header, 0 if it does not say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged, self.fault, self.reached = 0, "", Fraction(0)
        self._resources = contextlib.ExitStack()
        try:
            self.container = self._resources.enter_context(_opened(path))
            self.stream = _video_stream(self.container)
            self.others: list[Stream] = [
                stream for stream in self.container.streams if stream is not self.stream
            ]
            context = self.stream.codec_context
            if context.field_order not in _PROGRESSIVE:
                raise DecodingError(_interlaced(path))
            if context.width and context.height:
                check_size(context.width, context.height)
            self.stream.thread_type = "AUTO"
            self.stream.thread_count = torch.get_num_threads()
            self.codec = codec_name(context)
            self._waiting: list[CopiedPacket] = []
            self._reason = ""
            self._decoded = self._decode()
            self.first = self._first()
            check_size(self.first.width, self.first.height)
            self.coding: Coding = coding_of(self.first, self.codec)
            says = self.container.format.name.partition(",")[0] in _STATED
            self.stated = Fraction(self.container.duration or 0, 1_000_000) if says else Fraction(0)
        except BaseException:
            self._resources.close()
            raise

    def __enter__(self) -> "Clip":
        return self

    def __exit__(self, *_: object) -> None:
        self._decoded.close()
        self._resources.close()

    @property
    def header(self) -> Header:
        frames = self.stream.frames or round(self.seconds * self.rate)
        return Header(self.first.width, self.first.height, frames, self.rate)

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average; 25 where the file does not say."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def seconds(self) -> Fraction:
        """The length by the file's header, 0 if it does not say."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return self.stream.duration * self.stream.time_base
        return Fraction(self.container.duration or 0, 1_000_000)

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base or 1 / self.rate

    @property
    def start(self) -> Fraction:
        """The time in seconds that counts as zero."""
        if self.container.format.name in _SHIFTED:
            return Fraction(self.container.start_time or 0, 1_000_000)
        return Fraction(0)

    @property
    def tags(self) -> Tags:
        return tags_of(self.first)

    @property
    def matrix(self) -> tuple[int, ...] | None:
        """The display matrix, nine numbers, by which a player turns or mirrors frames; None for none."""
        found = side_data(self.first, "DISPLAYMATRIX")
        return None if found is None else struct.unpack("=9i", found[:36])

    def frames(self, copy: "Callable[[CopiedPacket], None] | None" = None) -> "Iterator[VideoFrame]":
        """All frames in the order in which they are shown; `copy` gets the packets of other streams between.

        Ends early, with a `fault`, where the rest cannot be read or is of another size.
        """
        yield self.first
        for frame in self._decoded:
            if copy is not None:
                self._hand_on(copy)
            if (frame.width, frame.height) != (self.first.width, self.first.height):
                self.fault = (
                    f"changes its size to {frame.width}x{frame.height} pixels: cut it there, and restore the "
                    "parts one by one"
                )
                return
            yield frame
        if copy is not None:
            self._hand_on(copy)

    def _hand_on(self, copy: "Callable[[CopiedPacket], None]") -> None:
        for packet in self._waiting:
            copy(packet)
        self._waiting.clear()

    def _first(self) -> "VideoFrame":
        for frame in self._decoded:
            return frame
        why = self.fault or self._reason
        raise DecodingError(f"has no frame that can be decoded{f' ({why})' if why else ''}")

    def near(self, share: float) -> "VideoFrame":
        """A frame near this share of the length, from which decoding can start; `frames` then go on there."""
        at = round(self.seconds * Fraction(share) / self.time_base) + (self.stream.start_time or 0)
        self.container.seek(at, stream=self.stream)
        self._decoded = self._decode()
        return self._first()

    def _decode(self) -> "Generator[VideoFrame]":
        import av

        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self.fault = f"cannot be read to its end ({reason(error)})"
                return
            if packet is None:
                return
            if packet.pts is not None and packet.time_base is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.reached = max(self.reached, end)
            if packet.stream is not self.stream:
                if packet.size:
                    self._waiting.append(packet)
                continue
            if packet.has_sidedata("encryption_info"):
                raise DecodingError("is encrypted: only a program that has its key can read it")
            try:
                found = self.stream.decode(packet)
            except av.FFmpegError as error:
                self.damaged += 1
                self._reason = reason(error)
                continue
            self.damaged += sum(frame.is_corrupt for frame in found)
            yield from found


@contextlib.contextmanager
def _opened(path: Path) -> "Iterator[InputContainer]":
    av = pyav()
    check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        container = av.open(file_url(path), options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        with path.open("rb") as file:
            start = file.read(12)
        if start[4:8] in (b"ftyp", b"mdat", b"moov"):
            raise DecodingError(
                "is cut short or damaged: its index (the moov box), which may be at its end, is missing"
            ) from error
        raise DecodingError(f"is not a video in a known format ({reason(error)})") from error
    with container:
        yield container


def file_url(path: Path) -> str:
    """A path for FFmpeg, which takes a name such as `a:b.mp4` for a protocol."""
    return f"file:{path.resolve()}"


def reason(error: Exception) -> str:
    """FFmpeg's word for an error, without its number."""
    return str(getattr(error, "strerror", None) or error)


def _video_stream(container: "InputContainer") -> "VideoStream":
    from av.stream import Disposition

    streams = [
        stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise DecodingError("has no pictures, only sound or other data")
    best = max(streams, key=_rank)
    if best.codec_context is None:
        raise DecodingError("is compressed in a way that cannot be decoded: convert it to H.264 first")
    return best


def _rank(stream: "VideoStream") -> tuple[bool, int, int]:
    from av.stream import Disposition

    context = stream.codec_context
    pixels = 0 if context is None else context.width * context.height
    return context is not None, bool(stream.disposition & Disposition.default), pixels


def _interlaced(path: Path) -> str:
    return (
        "is interlaced, and networks are trained on whole frames: make these first, such as with "
        f"ffmpeg -i {path.name} -vf bwdif -c:a copy PROGRESSIVE.mkv"
    )
