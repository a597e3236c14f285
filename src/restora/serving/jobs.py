"""Jobs: the options, progress and result of each restoration.

Jobs are written by the worker's thread and by the event loop. Every change increases `version`, which is the
id of server-sent events: a client that reconnects sends the last version it has seen.

Note: uploads and results are in files without names, which the system frees however the process ends.
"""

import asyncio
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, Literal

from restora.photos import exif
from restora.photos.files import Header, Photo
from restora.photos.header import QUARTER_TURNED
from restora.photos.kinds import READABLE
from restora.serving.limits import Limits
from restora.serving.models import ServedModel
from restora.serving.photo_bytes import format_of_result, load_pixels, store_pixels
from restora.serving.problems import Problem
from restora.serving.schemas import JobState, State

FINISHED = ("done", "failed", "cancelled")


def unnamed_file() -> IO[bytes]:
    """A file for an upload or a result."""
    return tempfile.TemporaryFile(prefix="restora-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a request; `format` None is the photo's own."""

    strength: float = 1.0
    sigma: float | Literal["auto"] | None = None
    """`auto`: estimated from the photo"""
    format: str | None = None
    quality: int | None = None
    keep_metadata: bool = True
    mask_upright: bool = False
    """whether the mask has the orientation of the upright photo, not of its stored pixels"""


@dataclass(kw_only=True)
class Job:
    """The job of one photo. `client_name` is the client's name for it, used only to name the download."""

    model: ServedModel
    options: Options
    header: Header
    upload: IO[bytes]
    mask: IO[bytes] | None = None
    client_name: str = "photo"
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    tiles_done: int = 0
    tiles: int = 0
    first_tiles: tuple[int, float] | None = None
    """how many tiles were done at the first report, and when: before, the photo is read and prepared"""
    last_tile: float = 0
    problem: Problem | None = None
    started: float | None = None
    finished: float | None = None
    result: IO[bytes] | None = None
    result_photo: Photo | None = None
    """The result without its pixels, which are in `result`: metadata, and the size as shape."""
    result_bytes: int = 0
    result_size: tuple[int, int] | None = None
    """width and height as a viewer shows it"""
    sigma: float | None = None
    """the noise level of the restoration, if the model is conditioned on one"""
    digest: bytes = b""
    """a hash of the request, if it had an Idempotency-Key"""
    version: int = 0
    fetched: bool = False
    """whether the result has been sent at least once"""
    handed_back: Problem | None = None
    """why the server stopped it, if the client did not request that"""
    reading: threading.Lock = field(default_factory=threading.Lock)
    """a lock on reading the files, because readers share their position"""
    cancelled: threading.Event = field(default_factory=threading.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def megapixels(self) -> float:
        return self.header.megapixels

    @property
    def stem(self) -> str:
        """A safe file name without its ending."""
        last = PurePath(self.client_name.replace("\\", "/")).name
        clean = re.sub(r'[\x00-\x1f\x7f"*/:<>?|]', "_", last)
        path = PurePath(clean)
        stem = path.stem if path.suffix.lower() in READABLE else path.name
        return stem[:100].strip(". ") or "photo"

    @property
    def result_format(self) -> str:
        return format_of_result(self.header, self.options.format)

    def set_result(self, photo: Photo) -> None:
        """Stores the result, with its pixels on disk."""
        self.result = unnamed_file()
        self.result_bytes = store_pixels(photo, self.result)
        height, width = photo.pixels.shape[:2]
        turned = exif.orientation(photo.metadata.exif) in QUARTER_TURNED
        self.result_size = (height, width) if turned else (width, height)
        self.result_photo = photo.replaced(photo.pixels[:0].copy())

    def read_result(self) -> Photo:
        """The restored photo, from disk."""
        if self.result is None or self.result_photo is None:
            raise Problem(410, "gone", "the result is no longer kept: send the photo again")
        return load_pixels(self.result, self.result_photo)

    def close(self) -> None:
        """Frees all files on disk."""
        for file in (self.upload, self.mask, self.result):
            if file is not None:
                file.close()
        self.mask = self.result = None

    def seconds_left(self, ahead: float) -> float | None:
        """Estimated seconds until this is done, if the photos before it take `ahead` seconds."""
        if self.state in FINISHED:
            return None
        whole = self.model.seconds(self.megapixels)
        if self.state == "waiting" or self.started is None:
            return ahead + whole
        now = time.monotonic()
        if self.first_tiles is None:
            return max(whole - (now - self.started), 0)
        done, at = self.first_tiles
        if self.tiles_done > done:
            pace = (self.last_tile - at) / (self.tiles_done - done)
        else:
            pace = whole / self.tiles or (at - self.started) / max(done, 1)
        return max(pace * (self.tiles - self.tiles_done) - (now - self.last_tile), 0)

    def tick(self, done: int, tiles: int) -> None:
        """Notes that `done` of the photo's tiles are done."""
        self.tiles_done, self.tiles = done, tiles
        self.last_tile = time.monotonic()
        self.first_tiles = self.first_tiles or (done, self.last_tile)

    def as_json(self, position: int | None, ahead: float) -> JobState:
        """The response of `GET /v1/restorations/{id}`."""
        left = self.seconds_left(ahead)
        height, width = self.header.shown
        base = f"/v1/restorations/{self.id}"
        return {
            "id": self.id,
            "state": self.state,
            "model": self.model.name,
            "photo": {
                "name": self.client_name,
                "width": width,
                "height": height,
                "format": self.header.format_name,
                "frames": self.header.frames,
            },
            "position": position,
            "progress": {"tiles_done": self.tiles_done, "tiles": self.tiles, "fraction": self._fraction()},
            "seconds_left": None if left is None else round(left, 1),
            "seconds": round(self.finished - self.started, 3) if self.finished and self.started else None,
            "result": None
            if self.result_size is None
            else {"width": self.result_size[0], "height": self.result_size[1], "sigma": self.sigma},
            "problem": None if self.problem is None else self.problem.body(),
            "links": {"self": base, "events": f"{base}/events", "photo": f"{base}/photo"},
        }

    def _fraction(self) -> float:
        if self.state == "done":
            return 1.0
        return round(self.tiles_done / self.tiles, 4) if self.tiles else 0.0


class JobStore:
    """All known jobs. `changed` may be called from any thread."""

    def __init__(self, *, limits: Limits) -> None:
        self.limits = limits
        self.jobs: dict[str, Job] = {}
        self._by_key: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sets the loop whose coroutines wait for changes."""
        self._loop = loop

    def add(self, job: Job, key: str | None = None) -> None:
        if len(self.jobs) >= self.limits.kept_jobs:  # more may come in a second than there is room for
            self.expire(time.monotonic())
        self.jobs[job.id] = job
        if key is not None:
            self._by_key[key] = job.id

    def get(self, job_id: str) -> Job:
        """The job of an id. Raises Problem for an unknown or expired id."""
        found = self.jobs.get(job_id)
        if found is None:
            raise Problem(
                404,
                "unknown",
                "there is no restoration with this id, or it has been deleted: send the photo again",
            )
        return found

    def of_key(self, key: str | None) -> Job | None:
        """The job of an earlier request with this Idempotency-Key."""
        return None if key is None else self.jobs.get(self._by_key.get(key, ""))

    def remove(self, job: Job) -> None:
        """Removes a finished job and all its data."""
        self.jobs.pop(job.id, None)
        self._by_key = {key: held for key, held in self._by_key.items() if held != job.id}
        job.close()

    def changed(self, job: Job) -> None:
        """Increases the version of `job` and wakes the coroutines that wait for it."""
        job.version += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: Job) -> None:
        event, job.wake = job.wake, asyncio.Event()
        event.set()

    async def news(self, job: Job, seen: int, seconds: float) -> bool:
        """Waits until `job` has a newer version than `seen`; False after `seconds` without one."""
        event = job.wake
        if job.version > seen:
            return True
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def finished(self, job: Job, seconds: float) -> bool:
        """Waits until `job` is finished; False after `seconds`."""
        end = time.monotonic() + seconds
        while job.state not in FINISHED:
            left = end - time.monotonic()
            if left <= 0 or not await self.news(job, job.version, left):
                return job.state in FINISHED
        return True

    def expire(self, now: float) -> None:
        """Removes finished jobs that are too old, and the oldest ones beyond the limits on kept results."""
        over = [job for job in self.jobs.values() if job.state in FINISHED]
        over.sort(key=lambda job: job.finished or 0)
        total = sum(job.result_bytes for job in over)
        for index, job in enumerate(over):
            too_much = total > self.limits.kept_megabytes * 1e6 or len(over) - index > self.limits.kept_jobs
            if too_much or now - (job.finished or now) > self.limits.keep_seconds:
                total -= job.result_bytes
                self.remove(job)

    def unfinished(self) -> Iterator[Job]:
        return (job for job in list(self.jobs.values()) if job.state not in FINISHED)
