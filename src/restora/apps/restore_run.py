"""The photos of `restora restore` through one restorer, one after the other.

Reading and writing files runs beside the network, so that an accelerator does not wait for PNG compression.
The time left is that of the megapixels left, not of the photos.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from restora.apps.restore_plan import Failure, Job
from restora.apps.restore_sheet import before_and_after
from restora.artifact.photo_pixels import restore_photo
from restora.artifact.restorer import Restorer
from restora.files import write_whole
from restora.fitting.photos import PhotoFit
from restora.photos.encoding import encode, lost_in, refuse
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


@dataclass(frozen=True)
class Settings:
    """What the user chose beside the model."""

    masks: Masks | None = None
    strength: float = 1.0
    self_ensemble: bool = False
    quality: int | None = None
    strip_metadata: bool = False
    compare: bool = False


@dataclass
class Outcome:
    """How many photos were written, which could not be or not wholly, and what the formats could not hold."""

    restored: int = 0
    failures: list[Failure] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    def losses(self) -> list[str]:
        """One line that counts what was left out of the files, or none."""
        if not self.lost:
            return []
        counted = (f"{what} ({times} photo{'s' * (times > 1)})" for what, times in self.lost.most_common())
        return [f"left out of the written files: {', '.join(counted)}"]


def run(jobs: Sequence[Job], restorer: Restorer | PhotoFit, settings: Settings) -> Outcome:
    """Restore all jobs, showing the progress; failures are in the order of the jobs."""
    bar = _progress_bar()
    outcome = Outcome()
    failures: dict[str, Failure] = {}
    writing: deque[tuple[Job, Future[None]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            job, future = writing.popleft()
            _guarded(job, future.result, failures)
            outcome.restored += job.name not in failures

    with bar, ThreadPoolExecutor(FILES_IN_FLIGHT + 1) as pool:
        task = bar.add_task("", total=sum(job.megapixels for job in jobs), photos=f"0/{len(jobs)}")
        before = 0.0
        for index, (job, photo) in enumerate(_read_ahead(jobs, pool)):
            bar.update(task, description=_shortened(job.name))

            def show(done: int, total: int, before: float = before, job: Job = job) -> None:
                bar.update(task, completed=before + job.megapixels * done / total)

            def restore(
                job: Job = job, photo: "Future[Photo]" = photo, show: Callable[[int, int], None] = show
            ) -> Callable[[], None]:
                return _restored(job, photo.result(), restorer, settings, show, outcome)

            write = _guarded(job, restore, failures)
            if write is not None:
                writing.append((job, pool.submit(write)))
            settle(FILES_IN_FLIGHT - 1)
            before += job.megapixels
            bar.update(task, completed=before, photos=f"{index + 1}/{len(jobs)}")
            if not bar.console.is_terminal:
                bar.console.print(f"{index + 1}/{len(jobs)} {job.name}", markup=False)
        settle(0)
    outcome.failures = [failures[job.name] for job in jobs if job.name in failures] + outcome.failures
    return outcome


def _restored(
    job: Job,
    photo: Photo,
    restorer: Restorer | PhotoFit,
    settings: Settings,
    show: Callable[[int, int], None],
    outcome: Outcome,
) -> Callable[[], None]:
    """What writes the restored photo. Raises ValueError where it cannot be restored, or the file could not
    hold it, which is found first."""
    format_name = FORMATS[job.target.suffix.lower()]
    refuse(photo, format_name, scale=restorer.scale)
    lost = None if settings.masks is None else settings.masks.read(job)
    if isinstance(restorer, PhotoFit):
        restored = restorer(photo, lost=lost, progress=show, strength=settings.strength)
    else:
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
    outcome.lost.update(lost_in(restored, format_name))
    if photo.frames > 1:
        outcome.failures.append(
            Failure(
                job.name, f"has {photo.frames} frames or pages: the first was restored, the others left out"
            )
        )

    def write() -> None:
        if settings.compare:
            sheet = job.target.with_name(f"{job.target.stem}.compare.jpg")
            write_whole(sheet, before_and_after(photo, restored, job.name))
        write_whole(job.target, encode(restored, format_name, quality=settings.quality))

    return write


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[photos]} photos"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    )


def _shortened(name: str, length: int = 28) -> str:
    """The end of a long name, which tells photos apart."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


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
