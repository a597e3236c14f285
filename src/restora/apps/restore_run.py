"""The photos of `restora restore` through one restorer, one after the other.

Reading and writing files runs beside the network, so that an accelerator does not wait for PNG compression.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from restora.apps.restore_plan import Failure, Job
from restora.artifact.photo_pixels import restore_photo
from restora.artifact.restorer import Restorer
from restora.files import write_whole
from restora.photos.encoding import encode
from restora.photos.files import FORMATS, Photo, read_photo

T = TypeVar("T")

FILES_IN_FLIGHT = 3
"""Photos being written while the next is restored; bounds the memory that waiting files take."""


@dataclass(frozen=True)
class Masks:
    """The masks of the photos: one file for all of them, or a folder of the same tree."""

    path: Path

    def read(self, job: Job) -> Photo:
        """Raises ValueError where the photo has no mask."""
        if self.path.is_file():
            return read_photo(self.path)
        wanted = self.path / job.name
        for candidate in (wanted, *(wanted.with_suffix(suffix) for suffix in FORMATS)):
            if candidate.is_file():
                return read_photo(candidate)
        raise ValueError(f"has no mask {wanted.with_suffix('.png')}")


def run(jobs: Sequence[Job], restorer: Restorer, masks: Masks | None = None) -> list[Failure]:
    """Restore all jobs, showing the progress; returns those that failed, in order."""
    bar = _progress_bar()
    failures: dict[str, Failure] = {}
    writing: deque[tuple[Job, Future[None]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            job, future = writing.popleft()
            _guarded(job, future.result, failures)

    with bar, ThreadPoolExecutor(FILES_IN_FLIGHT + 1) as pool:
        task = bar.add_task("", total=len(jobs))
        for index, (job, photo) in enumerate(_read_ahead(jobs, pool)):
            bar.update(task, description=job.name)

            def show(done: int, total: int, index: int = index) -> None:
                bar.update(task, completed=index + done / total)

            def restore(job: Job = job, photo: "Future[Photo]" = photo) -> Photo:
                lost = None if masks is None else masks.read(job)
                return restore_photo(photo.result(), restorer, lost=lost, progress=show)

            restored = _guarded(job, restore, failures)
            if restored is not None:
                writing.append((job, pool.submit(_write, restored, job.target)))
            settle(FILES_IN_FLIGHT - 1)
            bar.update(task, completed=index + 1)
            if not bar.console.is_terminal:
                bar.console.print(f"{index + 1}/{len(jobs)} {job.name}", markup=False)
        settle(0)
    return [failures[job.name] for job in jobs if job.name in failures]


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    )


def _read_ahead(jobs: Sequence[Job], pool: Executor) -> Iterator[tuple[Job, "Future[Photo]"]]:
    """Each job with its photo, while that of the next is read."""
    reading = pool.submit(read_photo, jobs[0].source)
    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        current = reading
        if following is not None:
            reading = pool.submit(read_photo, following.source)
        yield job, current


def _guarded(job: Job, work: Callable[[], T], failures: dict[str, Failure]) -> T | None:
    """The result of `work`, or None and a failure noted: whatever is wrong with one photo, the others go
    on."""
    try:
        return work()
    except Exception as error:  # decoders fail in every way on broken files: IndexError, MemoryError, …
        failures[job.name] = Failure(job.name, str(error) or type(error).__name__)
        return None


def _write(photo: "Photo", target: Path) -> None:
    write_whole(target, encode(photo, FORMATS[target.suffix.lower()]))
