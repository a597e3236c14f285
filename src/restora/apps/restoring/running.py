"""Runs the jobs of `restora restore` on one restorer, or on several on as many devices.

Small photos of one size form a batch if that is faster. Files are read and written in threads beside the
network, so that an accelerator does not wait for PNG compression. The time left is estimated from the
megapixels left, not from the number of photos.
"""

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from restora.apps.restoring.plan import Failure, Job, noun, sheet_of
from restora.apps.restoring.settings import Settings
from restora.apps.restoring.sheet import before_and_after
from restora.apps.restoring.stopping import (
    NO_ROOM,
    STOPPING,
    WORTH_KEEPING,
    Ended,
    Stopped,
    end_at_next_signal,
    so_far,
)
from restora.apps.restoring.video import failure_of, frames_done
from restora.apps.restoring.video import restore as restore_video
from restora.artifact.photo_pixels import blended, estimated_sigma, restore_photo, restore_photos
from restora.artifact.restorer import Restorer
from restora.files import write_whole
from restora.fitting.photos import PhotoFit
from restora.photos.encoding import encode, is_lossy, lost_in, refuse
from restora.photos.files import FORMATS, Photo, read_photo
from restora.words import counted, shown

T = TypeVar("T")

FILES_IN_FLIGHT = 3
"""Photos that are written while the next is restored; bounds the memory of waiting files."""


@dataclass
class Outcome:
    """The number of photos written, the full or partial failures, and the losses that formats cause."""

    restored: int = 0
    grey: int = 0
    """Photos without colour among them."""
    failures: list[Failure] = field(default_factory=list)
    left: int = 0
    """Photos that were not restored, as nothing more can be written."""
    full: bool = False
    """Whether nothing more can be written."""
    lost: Counter[str] = field(default_factory=Counter)
    lost_of_videos: Counter[str] = field(default_factory=Counter)
    compressed: set[str] = field(default_factory=set)
    """The lossy formats in which photos with a mask were written."""

    def losses(self) -> list[str]:
        """One line that counts the properties left out of the files, or none."""
        lost = [
            f"{what} ({counted(times, noun)})"
            for noun, losses in (("photo", self.lost), ("video", self.lost_of_videos))
            for what, times in losses.most_common()
        ]
        return [f"left out of the written files: {', '.join(lost)}"] if lost else []


Write = Callable[[], None]


def run(jobs: Sequence[Job], restorers: Sequence[Restorer | PhotoFit], settings: Settings) -> Outcome:
    """Restores all jobs, each with the next free restorer, and shows the progress.

    Failures are in the order of the jobs. Once nothing more can be written, the other photos are left. Raises
    `Ended` after a signal, when the tiles and files at hand are done.
    """
    work = _Work(jobs, restorers, settings)
    pending: deque[tuple[list[Job], Future[list[tuple[Job, Write]]]]] = deque()
    writing: deque[tuple[Job, Future[None]]] = deque()

    def settle(photos: int, files: int) -> None:
        while len(pending) > photos:
            group, future = pending.popleft()
            writing.extend((job, readers.submit(write)) for job, write in future.result())
            work.advance(group)
        while len(writing) > files:
            job, written = writing.popleft()
            work.guarded(job, written.result)
            work.outcome.restored += job.name not in work.failures

    try:
        with (
            work.bar,
            ThreadPoolExecutor(FILES_IN_FLIGHT + 1) as readers,
            ThreadPoolExecutor(len(restorers)) as workers,
            work.ending(),
        ):
            for group in _groups(jobs, restorers[0], settings):
                photos = [readers.submit(read_photo, job.source) for job in group if not job.is_video]
                pending.append((group, workers.submit(work.restore, group, photos)))
                settle(len(restorers), FILES_IN_FLIGHT - 1)
                if work.stopped.is_set():
                    break
            settle(0, 0)
    except (KeyboardInterrupt, SystemExit) as signal:
        done = sum(written.exception() is None for _, written in writing)  # by the ends of the threads
        raise Ended(work.outcome.restored + done) from signal
    work.outcome.left = len(jobs) - work.outcome.restored - len(work.failures)
    failed = [work.failures[job.name] for job in jobs if job.name in work.failures]
    work.outcome.failures = failed + work.outcome.failures
    return work.outcome


def _groups(jobs: Sequence[Job], restorer: Restorer | PhotoFit, settings: Settings) -> Iterator[list[Job]]:
    """Batches of adjacent photos of one size that fill an accelerator only together; usually one photo."""
    if isinstance(restorer, PhotoFit) or settings.masks or settings.self_ensemble or settings.estimate:
        yield from ([job] for job in jobs)
        return
    group: list[Job] = []
    for job in jobs:
        width, height = job.size
        if group and (
            job.is_video
            or group[0].is_video
            or job.size != group[0].size
            or len(group) >= restorer.together(height, width)
        ):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


class _Work:
    """State shared by the restoring threads: the free restorers, the progress, the failures."""

    def __init__(
        self, jobs: Sequence[Job], restorers: Sequence[Restorer | PhotoFit], settings: Settings
    ) -> None:
        self.settings, self.outcome = settings, Outcome()
        self.failures: dict[str, Failure] = {}
        self.stopped = threading.Event()
        self.bar = _progress_bar()
        self._free: SimpleQueue[Restorer | PhotoFit] = SimpleQueue()
        for restorer in restorers:
            self._free.put(restorer)
        self._count, self._settled = len(jobs), 0
        self._done: dict[str, float] = {}
        self._lock = threading.Lock()
        total = sum(job.megapixels for job in jobs)
        self._noun = noun(jobs)
        self._task = self.bar.add_task("", total=total, count=f"0/{self._count} {self._noun}s")

    def restore(self, group: list[Job], photos: "list[Future[Photo]]") -> list[tuple[Job, Write]]:
        """Runs in a thread; returns a function per restored photo that writes its file."""
        restorer = self._free.get()
        self._show(group, 0)
        try:
            if group[0].is_video:
                (job,) = group
                done = self.guarded(job, lambda: self._video(job, restorer))
                return [] if done is None else [(job, done)]
            together = None
            if len(group) > 1 and isinstance(restorer, Restorer):
                together = self._together(group, photos, restorer)
            made = []
            for index, (job, photo) in enumerate(zip(group, photos, strict=True)):

                def one(job: Job = job, photo: "Future[Photo]" = photo, index: int = index) -> Write:
                    return self._one(
                        job, photo.result(), restorer, None if together is None else together[index]
                    )

                write = self.guarded(job, one)
                if write is not None:
                    made.append((job, write))
            return made
        finally:
            self._free.put(restorer)

    def _together(
        self, group: list[Job], photos: "list[Future[Photo]]", restorer: Restorer
    ) -> list[Photo] | None:
        """Restores photos of one size as one batch; None if their shapes differ or it fails. Each is then
        restored by itself and gets its own message."""
        try:
            read = [photo.result() for photo in photos]
            if len({(photo.pixels.shape, photo.pixels.dtype) for photo in read}) > 1:
                return None
            restored = restore_photos(read, restorer, progress=self._progress(group))
        except Stopped:
            raise
        except Exception:
            return None
        strength = self.settings.strength
        return [blended(new, old, strength) for new, old in zip(restored, read, strict=True)]

    def _one(self, job: Job, photo: Photo, restorer: Restorer | PhotoFit, restored: Photo | None) -> Write:
        """Restores a photo; returns a function that writes it. Raises ValueError if it cannot be restored,
        or, before that, if the file's format cannot hold it."""
        if self.stopped.is_set():
            raise Stopped
        settings = self.settings
        format_name = FORMATS[job.target.suffix.lower()]
        refuse(photo, format_name, scale=restorer.scale)
        with self._lock:
            self.outcome.grey += bool((photo.pixels == photo.pixels[..., :1]).all())
        lost = None if settings.masks is None else settings.masks.read(job, photo)
        show = self._progress([job])
        unfinished = False
        if isinstance(restorer, PhotoFit):
            restored, unfinished = self._fitted(job, photo, restorer, lost)
        elif settings.estimate:
            sigma = estimated_sigma(photo, channels=restorer.network.in_channels)
            self._say(job, f"noise level {sigma:.1f} (estimated)")
            restorer = restorer.with_sigma(sigma)
        if restored is None:
            assert isinstance(restorer, Restorer)
            restored = restore_photo(
                photo,
                restorer,
                lost=lost,
                progress=show,
                strength=settings.strength,
                self_ensemble=settings.self_ensemble,
            )
        if settings.strip_metadata:
            restored = restored.without_metadata()
        if unfinished:
            kept = replace(job, target=so_far(job.target))
            _write(kept, photo, restored, replace(settings, compare=False))
            self._say(job, f"the result so far is in {shown(str(kept.target))}")
            raise Stopped
        with self._lock:
            self.outcome.lost.update(lost_in(restored, format_name))
            if lost is not None and is_lossy(restored.metadata, format_name, quality=settings.quality):
                self.outcome.compressed.add(format_name)
            if photo.frames > 1:
                reason = f"has {photo.frames} frames or pages: the first was restored, the others left out"
                self.outcome.failures.append(Failure(job.name, reason))
        return partial(_write, job, photo, restored, settings)

    def _video(self, job: Job, restorer: Restorer | PhotoFit) -> Write:
        """Restores and writes a video; the function that is left does nothing."""
        assert isinstance(restorer, Restorer)

        def show(done: float, total: int) -> None:
            if self.stopped.is_set():
                raise Stopped
            self._show([job], done / max(total, done, 1), frames_done(done, total))

        show(0, 0)
        outcome = restore_video(job, restorer, self.settings, show, partial(self._say, job))
        if outcome.sigma is not None:
            self._say(job, f"noise level {outcome.sigma:.1f} (estimated)")
        with self._lock:
            self.outcome.lost_of_videos.update(outcome.lost)
            self.outcome.failures += failure_of(job, outcome)
        return lambda: None

    def _say(self, job: Job, what: str) -> None:
        self.bar.console.print(f"{shown(job.name)}: {what}", markup=False)

    def _progress(self, group: list[Job]) -> Callable[[int, int], None]:
        def show(done: int, tiles: int) -> None:
            if self.stopped.is_set():
                raise Stopped
            self._show(group, done / tiles)

        return show

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Lets the threads end as the block is left; a signal is answered at once."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.bar.console.print(STOPPING, markup=False)
            end_at_next_signal()
            raise
        finally:
            self.stopped.set()

    def _fitted(self, job: Job, photo: Photo, fit: PhotoFit, lost: Photo | None) -> tuple[Photo, bool]:
        """The photo restored by a fit, and whether it was stopped after long enough to be kept."""
        started, stopped = time.monotonic(), False

        def enough() -> bool:
            nonlocal stopped
            stopped = self.stopped.is_set()
            if stopped and time.monotonic() - started < WORTH_KEEPING:
                raise Stopped
            return stopped

        restored = fit(
            photo,
            lost=lost,
            progress=lambda done, parts: self._show([job], done / parts),
            strength=self.settings.strength,
            say=partial(self._say, job),
            enough=enough,
        )
        return restored, stopped

    def _show(self, group: list[Job], share: float, frames: str = "") -> None:
        with self._lock:
            self._done.update({job.name: job.megapixels * share for job in group})
            count = frames or f"{self._settled}/{self._count} {self._noun}s"
            self.bar.update(
                self._task,
                completed=sum(self._done.values()),
                description=_shortened(group[0].name, 40 - len(count)),
                count=count,
            )

    def advance(self, group: list[Job]) -> None:
        """Counts the photos as done, whether restored or not."""
        for job in group:
            self._settled += 1
            self._show([job], 1)
            if not self.bar.console.is_terminal:
                self.bar.console.print(f"{self._settled}/{self._count} {shown(job.name)}", markup=False)

    def guarded(self, job: Job, work: Callable[[], T]) -> T | None:
        """The result of `work`; None if it fails, and the failure is recorded.

        No error of one photo stops the others, except that nothing more can be written.
        """
        try:
            return work()
        except Stopped:
            return None
        except Exception as error:  # decoders raise anything on broken files: IndexError, MemoryError, …
            self.failures[job.name] = Failure(job.name, " ".join(str(error).split()) or type(error).__name__)
            if getattr(error.__cause__, "errno", None) in NO_ROOM:
                self.stopped.set()
                self.outcome.full = True
            return None


def _write(job: Job, photo: Photo, restored: Photo, settings: Settings) -> None:
    try:
        _write_files(job, photo, restored, settings)
    except OSError as error:
        raise ValueError(f"{job.target} cannot be written: {error.strerror or error}") from error


def _write_files(job: Job, photo: Photo, restored: Photo, settings: Settings) -> None:
    if settings.compare:
        sheet = sheet_of(job.target)
        write_whole(sheet, before_and_after(photo, restored, shown(job.name)))
    format_name = FORMATS[job.target.suffix.lower()]
    write_whole(job.target, encode(restored, format_name, quality=settings.quality))


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    )


def _shortened(name: str, length: int) -> str:
    """The end of a long name, which is the part that distinguishes photos."""
    name = shown(name)
    return name if len(name) <= length else f"…{name[1 - length :]}"
