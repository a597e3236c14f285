"""Restores a video frame by frame, in memory that does not depend on its length.

A thread decodes the next frames and another encodes those before, beside the network. Frames are converted to
RGB and back in float32 on the restorer's device (`colour.py`), so that they are rounded once, when they are
encoded. A network with `frames` > 1 gets each frame with its neighbours (`photos/windows.py`), their channels
one after the other: (B,T*C,H,W).

Legend: B frames computed together, T frames of a window, C channels, H height, W width, s scale.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from restora.artifact.noise_level import network_noise_level
from restora.artifact.photo_pixels import mixed, over_all_turns, restore_planes
from restora.artifact.restorer import Progress, Restorer
from restora.files import check_writable, written_whole
from restora.photos.errors import DecodingError
from restora.photos.windows import windows
from restora.video.colour import from_rgb, to_rgb
from restora.video.pixels import coding_of, planes_of
from restora.video.reading import Clip
from restora.video.writing import QUALITY, Encoding, Writer, check_suffix, encoding_for
from restora.words import counted

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from restora.video.reading import CopiedPacket

T = TypeVar("T")
FrameProgress = Callable[[float, int], None]
"""Called with (frames done, frames in all by the file's header, 0 if unknown)."""
AHEAD = 2
"""Frames that are decoded ahead, and frames that wait to be encoded."""
SAMPLED = 5
"""Frames over the whole length on which the noise level is estimated."""
_READ_THROUGH = 250
"""Frames up to which a video is decoded to the frames that are sampled; keyframes of short ones are few."""
_SHORT = 0.5
"""Seconds by which a video may be shorter than its header says, as writers round."""
_ON_DEVICE = 2**26
"""Pixels of a result up to which it is made where the network is; larger ones are put together on the CPU."""
_DONE = object()


@dataclass(frozen=True)
class VideoOutcome:
    """What was written: the number of frames, and what the file cannot hold (`lost`).

    `fault` says why not all of the video was restored, empty if it was. `sigma` is the estimated noise level.
    """

    frames: int
    fault: str = ""
    lost: tuple[str, ...] = ()
    sigma: float | None = None


@dataclass(frozen=True)
class _Frame:
    """`x` (1,C,H,W) in [0,1], of the frame `given`."""

    given: "VideoFrame"
    x: Tensor


def restore_video(
    source: str | Path,
    target: str | Path,
    restorer: Restorer,
    *,
    quality: int = QUALITY,
    strength: float = 1.0,
    self_ensemble: bool = False,
    strip_metadata: bool = False,
    estimate: bool = False,
    progress: FrameProgress | None = None,
) -> VideoOutcome:
    """Restores the frames of the video `source`; the sound and all else is copied to `target`.

    The suffix of `target` is .mp4, .m4v, .mov, .mkv, .webm or .avi. It is written as a whole or not at all;
    an existing file is replaced. `quality` is 1 to 100, as of a JPEG; 100 in .mkv loses nothing. `strength`
    is the share of the result, from 0, the input, to 1. With `estimate` the noise level is estimated once for
    the whole video. `progress` may raise an exception, which ends the work.

    Raises ValueError that says why the video cannot be restored or written.
    """
    source, target = Path(source), Path(target)
    suffix = check_suffix(target)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be a number from 0 to 1, got {strength:g}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be a whole number from 1 to 100, got {quality}")
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the video to restore and would be overwritten: name another file")
    check_writable(target, setting="target")
    sigma = None
    if estimate:
        restorer = restorer.with_sigma(sigma := estimated_sigma(source, channels=channels_of(restorer)))
    work = _Work(restorer, strength=strength, self_ensemble=self_ensemble, progress=progress)
    with Clip(source) as clip, written_whole(target) as draft:
        lost = work.run(clip, draft, suffix, quality=quality, strip=strip_metadata)
    return VideoOutcome(work.written, _fault(clip, work.written), tuple(dict.fromkeys(lost)), sigma)


def channels_of(restorer: Restorer) -> int:
    """The channels of a frame that the network gets."""
    return restorer.network.in_channels // _frames_of(restorer)


def _frames_of(restorer: Restorer) -> int:
    return getattr(restorer.network, "frames", 1)


def estimated_sigma(source: Path, *, channels: int = 3) -> float:
    """The noise level of a video, on the 8-bit scale, for a network of so many channels per frame.

    It is the median over frames from all of the length.
    """
    levels = []
    for x in _sampled(source):
        try:
            levels.append(min(network_noise_level(x[0], channels), 255.0))
        except ValueError as error:
            raise DecodingError(str(error)) from error
    return sorted(levels)[len(levels) // 2]


def _sampled(source: Path) -> Iterator[Tensor]:
    """Frames (1,C,H,W) from all of the length: at even distances, of a long video where it can be entered."""
    with Clip(source) as clip:
        count = clip.header.frames
        if count > _READ_THROUGH:
            frames = (clip.near((number + 0.5) / SAMPLED) for number in range(SAMPLED))
        else:
            places = {count * (2 * number + 1) // (2 * SAMPLED) for number in range(SAMPLED)}
            frames = (frame for number, frame in enumerate(clip.frames()) if number in places)
        for frame in frames:
            yield to_rgb(planes_of(frame), coding_of(frame, clip.codec))


def _fault(clip: Clip, frames: int) -> str:
    """Why the result is not all of the video, empty if it is."""
    expected = clip.header.frames if clip.stream.frames else 0
    if clip.fault:
        return f"{clip.fault}; what was before it is restored, {counted(frames, 'frame')}"
    if clip.damaged:
        places, decoded = counted(clip.damaged, "place"), counted(frames, "frame")
        return f"is damaged in {places}; what could be decoded is restored, {decoded}"
    if frames < expected:
        return f"ends after {frames} of {counted(expected, 'frame')}; what there is is restored"
    if clip.stated - clip.reached > _SHORT:
        ends, length = float(clip.reached), float(clip.stated)
        return f"is cut short: it ends after {ends:.1f} of {length:.1f} s; what there is is restored"
    return ""


@dataclass
class _Work:
    """The restoring of one video. `written` counts frames."""

    restorer: Restorer
    strength: float
    self_ensemble: bool
    progress: FrameProgress | None
    written: int = 0
    _writing: "deque[Future[None]]" = field(default_factory=deque)

    def run(self, clip: Clip, draft: Path, suffix: str, *, quality: int, strip: bool) -> list[str]:
        """Writes the restored clip; returns what the file cannot hold."""
        copied: SimpleQueue[CopiedPacket] = SimpleQueue()
        with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as encoding:
            results = self._restored(clip, _ahead(clip.frames(copied.put), reading))
            first, y = next(results)
            channels, height, width = y.shape[1:]
            chosen, lost = encoding_for(suffix, quality, clip, height=height, width=width, channels=channels)
            with Writer(draft, suffix, clip, chosen, size=(height, width), strip=strip) as writer:
                try:
                    self._write(writer, chosen, copied, first, y, encoding)
                    for given, y in results:
                        self._write(writer, chosen, copied, given, y, encoding)
                finally:
                    results.close()
                    self._settle(0)
                _copy_all(copied, writer)
        return lost + writer.lost

    def _write(
        self,
        writer: Writer,
        encoding: Encoding,
        copied: "SimpleQueue[CopiedPacket]",
        given: "VideoFrame",
        y: Tensor,
        thread: ThreadPoolExecutor,
    ) -> None:
        planes = from_rgb(y, encoding.coding)

        def write() -> None:
            _copy_all(copied, writer)
            writer.write(planes, given)

        self._writing.append(thread.submit(write))
        self._settle(AHEAD)

    def _settle(self, left: int) -> None:
        while len(self._writing) > left:
            self._writing.popleft().result()
            self.written += 1

    def _restored(self, clip: Clip, frames: "Iterator[VideoFrame]") -> "Generator[tuple[VideoFrame, Tensor]]":
        """Each frame with its result (1,C',H*s,W*s)."""
        total, done = clip.header.frames, 0
        size = _frames_of(self.restorer)
        around = windows((self._entered(frame, clip) for frame in frames), size)
        together = self.restorer.together(clip.first.height, clip.first.width)
        while batch := [window for _, window in zip(range(together), around, strict=False)]:
            centres = [window[size // 2] for window in batch]
            x = torch.cat([torch.cat([held.x for held in window], dim=1) for window in batch])
            y = self._answer(
                x, torch.cat([held.x for held in centres]), partial(self._show, total, done, len(batch))
            )
            yield from ((held.given, one[None]) for held, one in zip(centres, y, strict=True))
            done += len(batch)

    def _answer(self, x: Tensor, centre: Tensor, show: Progress) -> Tensor:
        """(B,T*C,H,W) and the frames themselves (B,C,H,W) -> (B,C',H*s,W*s)."""
        one = partial(restore_windows, restorer=self.restorer, channels=centre.shape[1])
        if self.self_ensemble:
            y = over_all_turns(x, None, lambda x, _, progress: one(x, progress=progress), show)
        else:
            y = one(x, progress=show)
        return mixed(centre, y, self.strength)

    def _show(self, total: int, done: int, count: int, tiles: int, of: int) -> None:
        if self.progress is not None:
            self.progress(done + count * tiles / of, total)

    def _entered(self, frame: "VideoFrame", clip: Clip) -> _Frame:
        device = self.restorer.device
        if frame.width * frame.height * self.restorer.scale**2 > _ON_DEVICE:
            device = torch.device("cpu")
        return _Frame(frame, to_rgb([plane.to(device) for plane in planes_of(frame)], clip.coding))


def restore_windows(
    x: Tensor, *, restorer: Restorer, channels: int, progress: Progress | None = None
) -> Tensor:
    """(B,T*C,H,W), windows of frames of C `channels` -> (B,C',H*s,W*s), for any network as for photos."""
    frames, takes = _frames_of(restorer), channels_of(restorer)
    if frames == 1:
        return restore_planes(x, None, restorer, progress)
    if takes == channels:
        return restorer(x, progress=progress)
    each = x.unflatten(1, (frames, channels))
    if takes == 1:  # each channel by itself
        planes = each.transpose(1, 2).flatten(0, 1)
        return restorer(planes, progress=progress)[:, 0].unflatten(0, (-1, channels))
    if channels == 1:  # grey, repeated to colour
        return restorer(each.expand(-1, -1, takes, -1, -1).flatten(1, 2), progress=progress).mean(
            1, keepdim=True
        )
    raise ValueError(f"a model of {takes} channels per frame cannot be applied to grey or RGB video")


def _ahead(items: Iterator[T], thread: ThreadPoolExecutor) -> Iterator[T]:
    """The items, the next `AHEAD` of which are made in a thread meanwhile."""
    pending = deque(thread.submit(next, items, _DONE) for _ in range(AHEAD))
    while (item := pending.popleft().result()) is not _DONE:
        pending.append(thread.submit(next, items, _DONE))
        yield item  # type: ignore[misc]


def _copy_all(copied: "SimpleQueue[CopiedPacket]", writer: Writer) -> None:
    while not copied.empty():
        writer.copy(copied.get())
