"""What `restora restore` has to do: the photos to restore, where each goes, and which cannot be done."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restora.photos.files import FORMATS, OTHER_PHOTO_SUFFIXES


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


def plan(source: Path, output: Path) -> tuple[list[Job], list[Failure], int]:
    """The photos to restore, those in formats that cannot be written, and the number of other files.

    Raises ValueError when there are no photos, or when an output would overwrite an input.
    """
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


def settle_existing(jobs: list[Job], *, overwrite: bool, skip: bool) -> list[Job]:
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
