"""The bounded queue and the one thread that computes.

A place is reserved before a photo is received, so that a photo that cannot be queued is not stored either.
The response of a full queue (429) has the estimated rest of the running photo as Retry-After.

Note: a cancelled job stops between two tiles of its photo; the computation of a tile is not interrupted.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch

from restora.artifact.photo_pixels import estimated_sigma, restore_photo, restore_photos
from restora.artifact.restorer import Restorer
from restora.photos.files import Photo
from restora.serving.examples import example
from restora.serving.jobs import Job, JobStore
from restora.serving.limits import Limits
from restora.serving.models import ServedModel
from restora.serving.photo_bytes import check_format, preview, read
from restora.serving.problems import Problem
from restora.serving.rendering import read_mask
from restora.serving.schemas import State

logger = logging.getLogger(__name__)
Sigma = float | Literal["auto"] | None


class Cancelled(Exception):
    """Raised between tiles of a cancelled job."""


class Queue:
    """Waiting jobs, and places reserved for photos that are being received; `size` in all."""

    def __init__(self, *, size: int) -> None:
        self.size = size
        self.running: Job | None = None
        self._waiting: deque[Job] = deque()
        self._reserved = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting) + self._reserved

    def reserve(self) -> "Place":
        """Reserves a place for a photo before it is received. Raises Problem if there is none."""
        with self._changed:
            if self._closed:
                raise Problem(503, "not-ready", "the server is stopping: send the photo again soon", 5)
            if len(self) >= self.size:
                raise Problem(429, "full", self._full(), self.retry_after())
            self._reserved += 1
        return Place(self)

    def _full(self) -> str:
        return (
            f"the queue is full (limit: {self.size}): try again in a while, or start the server with a "
            "larger --queue"
        )

    def retry_after(self) -> int:
        """Whole seconds until a place is likely to be free: the estimated rest of the running photo."""
        running = self.running
        left = None if running is None else running.seconds_left(0)
        return max(1, min(int(-(-(left or 0) // 1)), 3600))

    def settle(self, job: Job | None) -> None:
        """Releases a reserved place, or fills it with a job."""
        with self._changed:
            self._reserved -= 1
            if job is not None:
                if self._closed:
                    raise Problem(503, "not-ready", "the server is stopping: send the photo again soon", 5)
                self._waiting.append(job)
                self._changed.notify()

    def take(self) -> Job | None:
        """Waits for a job, which is then `running`; None if the queue is closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            self.running = self._waiting.popleft() if self._waiting else None
            return self.running

    def take_like(self, job: Job, most: int) -> list[Job]:
        """Removes and returns up to `most` waiting jobs that can be in one batch with `job`."""
        with self._changed:
            found = [other for other in self._waiting if goes_with(job, other)][: max(most, 0)]
            for other in found:
                self._waiting.remove(other)
            return found

    def done(self) -> None:
        with self._changed:
            self.running = None

    def remove(self, job: Job) -> bool:
        """Removes `job` if it waits; returns whether it did."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def ahead(self, job: Job) -> tuple[int | None, float]:
        """The number of photos before `job` (None if it does not wait), and the seconds they take."""
        with self._changed:
            before: list[Job] = []
            for other in self._waiting:
                if other is job:
                    break
                before.append(other)
            else:
                return None, 0.0
            running = self.running
        current = [] if running is None else [running]
        return len(before) + len(current), sum(held.seconds_left(0) or 0 for held in [*current, *before])

    def close(self) -> None:
        """Accepts no more jobs; waiting jobs are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self) -> list[Job]:
        """Removes and returns all waiting jobs."""
        with self._changed:
            held = list(self._waiting)
            self._waiting.clear()
            return held


def goes_with(job: Job, other: Job) -> bool:
    """Whether two photos can be one batch: small, same size, model and noise level, without masks."""
    tile = job.model.restorer.tile
    size = (job.header.width, job.header.height)
    return (
        other.model is job.model
        and job.mask is None
        and other.mask is None
        and other.options.sigma == job.options.sigma != "auto"
        and (other.header.width, other.header.height) == size
        and max(size) <= tile
    )


class Place:
    """A reserved place in a queue; leaving the `with` block without `fill` releases it."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._held = queue, True

    def fill(self, job: Job) -> None:
        self._held = False
        self._queue.settle(job)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._held = False
            self._queue.settle(None)


class Worker(threading.Thread):
    """Warms the models up, then restores one photo after the other."""

    def __init__(
        self, *, models: Iterable[ServedModel], queue: Queue, store: JobStore, limits: Limits, batch: int
    ) -> None:
        super().__init__(name="restora-worker", daemon=True)
        self.batch = batch
        self.models, self.queue, self.store, self.limits = list(models), queue, store, limits
        self.ready = threading.Event()
        self.finished_by_state: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0}
        self.megapixels = 0.0
        self.seconds = 0.0

    def run(self) -> None:
        for model in self.models:
            self._warm_up(model)
        self.ready.set()
        while (job := self.queue.take()) is not None:
            more = self.queue.take_like(job, self.batch - 1)
            if more:
                self._serve_together([job, *more])
            else:
                self._serve(job)

    def _warm_up(self, model: ServedModel) -> None:
        """Runs an example twice and measures the second run, because the first one is slower. The result is
        the model's example on the page."""
        try:
            photo, lost = example(model.description.task, model.description.undoes)
            for _ in range(2):
                started = time.perf_counter()
                restorer = _restorer(model, model.restorer.sigma or 25.0, photo)
                restored = restore_photo(photo, restorer, lost=lost)
                seconds = time.perf_counter() - started
            model.pace = seconds / (photo.pixels.shape[0] * photo.pixels.shape[1] / 1e6)
            model.example = (preview(photo), preview(restored))
        except Exception:  # a model that fails here may still restore other photos
            logger.exception("the example of model %s failed", model.name)

    def _serve_together(self, jobs: list[Job]) -> None:
        """Restores small photos as one batch; if their shapes differ or it fails, each by itself."""
        for job in jobs:
            job.state, job.started = "running", time.monotonic()
            self.store.changed(job)
        first = jobs[0]

        def tick(done: int, tiles: int) -> None:
            if all(job.cancelled.is_set() for job in jobs):
                raise Cancelled
            for job in jobs:
                job.tick(done, tiles)
                self.store.changed(job)

        restored: list[Photo] = []
        try:
            photos = [read(job.upload) for job in jobs]
            if len({(photo.pixels.shape, photo.pixels.dtype) for photo in photos}) == 1:
                restorer = _restorer(first.model, first.options.sigma, photos[0])
                restored = restore_photos(photos, restorer, progress=tick)
                for job in jobs:
                    job.sigma = restorer.sigma
        except Exception as error:  # one by one, each job gets its own response
            logger.info("a batch of %d is served one by one: %s", len(jobs), error)
        share = (time.monotonic() - (first.started or 0)) / len(jobs)
        for index, job in enumerate(jobs):
            self._serve(job, restored[index] if restored else None, share if restored else None)

    def _serve(self, job: Job, restored: Photo | None = None, seconds: float | None = None) -> None:
        """Takes a job from waiting to finished, whatever happens; a batch has `restored` it in `seconds`."""
        if seconds is None:
            job.state, job.started = "running", time.monotonic()
            self.store.changed(job)
        try:
            if restored is not None and job.cancelled.is_set():
                raise Cancelled
            if restored is not None:
                check_format(restored, job.result_format)
            job.set_result(self._restored(job) if restored is None else restored)
            self._finish(job, "done", seconds=seconds)
        except Cancelled:
            self._finish(job, "cancelled" if job.handed_back is None else "failed", job.handed_back)
        except Problem as problem:
            self._finish(job, "failed", problem)
        except (MemoryError, torch.OutOfMemoryError):
            detail = f"not enough memory for a photo of {job.megapixels:.0f} megapixels: send a smaller one"
            self._finish(job, "failed", Problem(413, "too-large", detail))
        except ValueError as error:
            self._finish(job, "failed", Problem(422, "bad-photo", f"the photo {error}"))
        except Exception:
            logger.exception("restoration %s failed", job.id)
            detail = "the photo could not be restored: the reason is in the log of the server"
            self._finish(job, "failed", Problem(500, "internal", detail))

    def _finish(
        self, job: Job, state: State, problem: Problem | None = None, *, seconds: float | None = None
    ) -> None:
        job.finished = time.monotonic()
        assert job.started is not None
        if state == "done":
            took = job.finished - job.started if seconds is None else seconds
            job.model.measured(job.megapixels, took)
            self.megapixels += job.megapixels
            self.seconds += took
        self.end(job, state, problem)
        self.queue.done()

    def end(self, job: Job, state: State, problem: Problem | None = None) -> None:
        """Marks a job as finished; frees its files unless it is done."""
        job.finished = job.finished or time.monotonic()
        # a copy: the traceback of the one that was raised holds the photo and the tensors
        job.problem = None if problem is None else replace(problem)
        self.finished_by_state[state] += 1
        if state != "done":
            job.close()
        job.state = state
        self.store.changed(job)

    def _restored(self, job: Job) -> Photo:
        if job.cancelled.is_set():
            raise Cancelled
        photo = read(job.upload)
        scale = job.model.restorer.scale
        check_format(photo, job.result_format, scale=scale)
        mask = None
        if job.mask is not None:
            mask = read_mask(job.mask, photo, mask_upright=job.options.mask_upright)

        def tick(done: int, tiles: int) -> None:
            job.tick(done, tiles)
            self.store.changed(job)
            self._check(job)

        restorer = _restorer(job.model, job.options.sigma, photo)
        job.sigma = None if restorer.sigma is None else round(restorer.sigma, 1)
        return restore_photo(photo, restorer, lost=mask, progress=tick)

    def _check(self, job: Job) -> None:
        """Called between tiles. Raises Cancelled, or Problem after the time limit."""
        if job.cancelled.is_set():
            raise Cancelled
        assert job.started is not None
        if job.tiles_done < job.tiles and time.monotonic() - job.started > self.limits.seconds:
            detail = f"the restoration took longer than {self.limits.seconds:.0f} s: send a smaller photo"
            raise Problem(413, "too-large", detail)


def _restorer(model: ServedModel, sigma: Sigma, photo: Photo) -> Restorer:
    """The model's restorer, with the noise level of the request."""
    if sigma is None or model.needs != "noise level":
        return model.restorer
    restorer = model.restorer
    if sigma == "auto":
        sigma = estimated_sigma(photo, channels=restorer.network.in_channels)
    return restorer.with_sigma(sigma)
