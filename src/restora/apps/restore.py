"""`restora restore`: a photo or a tree of photos through a model folder.

Names, tree, format, bit depth, EXIF, colour profile and transparency are kept. One photo that cannot be
restored is named and the rest goes on; the exit code is 0 only if every photo was restored. Reading and
writing files runs beside the network, so that an accelerator does not wait for PNG compression.
"""

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from restora.apps.photo_files import Photo
    from restora.artifact.restorer import Restorer

T = TypeVar("T")

FILES_IN_FLIGHT = 3
"""Photos being written while the next is restored; bounds the memory that waiting files take."""


@dataclass(frozen=True)
class Job:
    """One photo: where it is, where it goes, and what it is called in messages."""

    source: Path
    target: Path
    name: str


@dataclass(frozen=True)
class Failure:
    name: str
    reason: str


def parser() -> argparse.ArgumentParser:
    """The command line of `restora restore`."""
    made = argparse.ArgumentParser(
        prog="restora restore",
        description="Restore a photo, or every photo of a folder and its subfolders, with a model folder. "
        "File names, tree, format, bit depth, EXIF, colour profile and transparency are kept. "
        "The exit code is 0 only if every photo was restored.",
    )
    made.add_argument("model", metavar="MODEL_FOLDER", help="made by `restora export`")
    made.add_argument("input", metavar="INPUT", help="a photo or a folder of photos")
    made.add_argument(
        "output", metavar="OUTPUT", help="where to write: a folder, or a file name for a single photo"
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    made.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    made.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="side of a tile; less needs less memory, 0 is the whole photo (1088)",
    )
    made.add_argument("--overlap", type=int, metavar="PIXELS", help="what neighbouring tiles share (64)")
    made.add_argument(
        "--sigma", type=float, metavar="LEVEL", help="noise level, 0 to 255, for models that are told it"
    )
    made.add_argument(
        "--mask",
        metavar="PATH",
        help="for models that fill in: a picture that is white where the photo is lost, or a folder of them "
        "with the photos' names",
    )
    existing = made.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace photos that OUTPUT has already")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave them, and go on with the others"
    )
    return made


def main(argv: Sequence[str]) -> int:
    """0 if every photo was restored, 1 if some could not be; ValueError for arguments that make no sense."""
    options = parser().parse_args(argv)
    source, output = Path(options.input), Path(options.output)
    jobs, failures, others = plan(source, output)
    jobs = _settle_existing(jobs, overwrite=options.overwrite, skip=options.skip_existing)
    if jobs:
        restorer = _load(options)
        started = time.perf_counter()
        masks = None if options.mask is None else Masks(Path(options.mask))
        failures += run(jobs, restorer, masks)
        seconds = time.perf_counter() - started
        done = len(jobs) - _failed(jobs, failures)
        print(f"restored {done} of {len(jobs)} photos in {seconds:.1f} s: {output}")
    else:
        print(f"nothing to restore: {output} has every photo already")
    if others:
        print(f"{others} files that are not photos were left out")
    for failure in failures:
        print(f"restora restore: {failure.name}: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def _failed(jobs: list[Job], failures: list[Failure]) -> int:
    names = {failure.name for failure in failures}
    return sum(job.name in names for job in jobs)


def _load(options: argparse.Namespace) -> "Restorer":
    from PIL import Image

    from restora.allocator import keep_freed_memory
    from restora.artifact.restorer import TILE, Restorer

    keep_freed_memory()
    Image.MAX_IMAGE_PIXELS = None  # Pillow's guard against hostile uploads: these are the user's own photos
    restorer = Restorer.load(
        options.model,
        device=options.device,
        precision=options.precision,
        tile=TILE if options.tile is None else options.tile,
        overlap=options.overlap,
        sigma=options.sigma,
    )
    _check_told(restorer, options)
    return restorer


def _check_told(restorer: "Restorer", options: argparse.Namespace) -> None:
    """Raises ValueError where the model and the options differ about what the model is told."""
    assert restorer.description is not None
    told = restorer.description.told
    if told == "maps":
        raise ValueError("this model is told maps that this command cannot make: use it from Python")
    if options.sigma is not None and told != "noise level":
        raise ValueError("--sigma was given, but this model is not told a noise level: leave it out")
    if options.mask is not None and told != "mask":
        raise ValueError("--mask was given, but this model is not told a mask: leave it out")
    if options.mask is None and told == "mask":
        raise ValueError("this model is told which pixels are lost: give --mask PATH")
    if told == "noise level" and restorer.sigma is None:
        raise ValueError(
            "this model is told the noise level and was trained on more than one: give --sigma LEVEL"
        )


@dataclass(frozen=True)
class Masks:
    """The masks of the photos: one file for all of them, or a folder of the same tree."""

    path: Path

    def read(self, job: Job) -> "Photo":
        """Raises ValueError where the photo has no mask."""
        from restora.apps.photo_files import FORMATS, read_photo

        if self.path.is_file():
            return read_photo(self.path)
        wanted = self.path / job.name
        for candidate in (wanted, *(wanted.with_suffix(suffix) for suffix in FORMATS)):
            if candidate.is_file():
                return read_photo(candidate)
        raise ValueError(f"has no mask {wanted.with_suffix('.png')}")


def plan(source: Path, output: Path) -> tuple[list[Job], list[Failure], int]:
    """The photos to restore, those in formats that cannot be written, and the number of other files.

    Raises ValueError when there are no photos, or when an output would overwrite an input.
    """
    from restora.apps.photo_files import FORMATS, OTHER_PHOTO_SUFFIXES

    if source.is_dir():
        if output.exists() and not output.is_dir():
            raise ValueError(f"{source} is a folder, but {output} is a file: name a folder to write to")
        found = [(path, output / path.relative_to(source)) for path in _walk(source, output)]
    elif source.exists():
        as_file = output.suffix.lower() in FORMATS and not output.is_dir()
        found = [(source, output if as_file else output / source.name)]
    else:
        raise ValueError(f"there is no photo or folder {source}")
    jobs, failures, others = [], [], 0
    for path, target in found:
        name = str(path.relative_to(source)) if source.is_dir() else path.name
        suffix = path.suffix.lower()
        if suffix in FORMATS:
            jobs.append(Job(path, target, name))
        elif suffix in OTHER_PHOTO_SUFFIXES or not source.is_dir():
            known = ", ".join(sorted(FORMATS))
            failures.append(
                Failure(name, f"{suffix or 'no suffix'} is not a format that can be written ({known})")
            )
        else:
            others += 1
    if not jobs and not failures:
        raise ValueError(f"there are no photos in {source}")
    inputs = {job.source.resolve() for job in jobs}
    clash = next((job for job in jobs if job.target.resolve() in inputs), None)
    if clash is not None:
        raise ValueError(
            f"{clash.target} is one of the photos to restore and would be overwritten: name another OUTPUT"
        )
    return jobs, failures, others


def _walk(folder: Path, output: Path) -> Iterator[Path]:
    """The files below `folder` in order, without hidden ones and without those of `output`."""
    avoided = output.resolve()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(parent) / name).resolve() != avoided
        )
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def _settle_existing(jobs: list[Job], *, overwrite: bool, skip: bool) -> list[Job]:
    """The jobs to do when some outputs exist. Raises ValueError when the user has not said what to do with
    them."""
    existing = [job for job in jobs if job.target.exists()]
    if not existing or overwrite:
        return jobs
    if skip:
        return [job for job in jobs if not job.target.exists()]
    raise ValueError(
        f"{existing[0].target} exists{f' (and {len(existing) - 1} more)' if len(existing) > 1 else ''}: "
        "add --overwrite to replace, or --skip-existing to restore only what is missing"
    )


def run(jobs: Sequence[Job], restorer: "Restorer", masks: Masks | None = None) -> list[Failure]:
    """Restore all jobs, showing the progress; returns those that failed, in order."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from restora.apps.photo_files import read_photo
    from restora.apps.photo_pixels import restore_photo

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        TimeRemainingColumn(),
        console=console,
    )
    failures: dict[str, Failure] = {}
    writing: deque[tuple[Job, Future[None]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            job, future = writing.popleft()
            _guarded(job, future.result, failures)

    with bar, ThreadPoolExecutor(FILES_IN_FLIGHT + 1) as pool:
        task = bar.add_task("", total=len(jobs))
        reading = pool.submit(read_photo, jobs[0].source)
        for index, job in enumerate(jobs):
            bar.update(task, description=job.name)
            current = reading
            if index + 1 < len(jobs):
                reading = pool.submit(read_photo, jobs[index + 1].source)

            def restore(job: Job = job, current: "Future[Photo]" = current, index: int = index) -> "Photo":
                def show(done: int, total: int) -> None:
                    bar.update(task, completed=index + done / total)

                lost = None if masks is None else masks.read(job)
                return restore_photo(current.result(), restorer, lost=lost, progress=show)

            restored = _guarded(job, restore, failures)
            if restored is not None:
                writing.append((job, pool.submit(_write, restored, job.target)))
            settle(FILES_IN_FLIGHT - 1)
            bar.update(task, completed=index + 1)
            if not console.is_terminal:
                console.print(f"{index + 1}/{len(jobs)} {job.name}", markup=False)
        settle(0)
    return [failures[job.name] for job in jobs if job.name in failures]


def _guarded(job: Job, work: Callable[[], T], failures: dict[str, Failure]) -> T | None:
    """The result of `work`, or None and a failure noted: whatever is wrong with one photo, the others go
    on."""
    try:
        return work()
    except (
        Exception
    ) as error:  # decoders fail in every way on broken files: struct.error, IndexError, MemoryError, …
        failures[job.name] = Failure(job.name, str(error) or type(error).__name__)
        return None


def _write(photo: "Photo", target: Path) -> None:
    from restora.apps.photo_encoding import encode
    from restora.apps.photo_files import FORMATS, write_file

    write_file(target, encode(photo, FORMATS[target.suffix.lower()]))
