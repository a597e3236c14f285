"""The plan of `restora restore`: the photos and videos to restore, their outputs, and what cannot be done."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from restora.files import LONGEST_NAME, check_writable
from restora.photos.errors import DecodingError, PhotoError
from restora.photos.kinds import (
    FORMAT_SUFFIXES,
    FORMATS,
    LOSSY,
    READABLE,
    VIDEO_FORMATS,
    VIDEO_SUFFIXES,
    kind,
    suffix_of,
    why_not,
)
from restora.photos.listing import look_through
from restora.photos.reading import photo_header

SHEET_ENDING = ".compare.jpg"
"""Appended to the name of an output, ending included, so that a.png and a.jpg get a sheet each."""
_LIKE_A_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,4}")
"""A file's, rather than a part of a folder's name."""


@dataclass(frozen=True)
class Job:
    """One photo or video: its file, its output, and its name in messages."""

    source: Path
    target: Path
    name: str
    megapixels: float = 0.0
    size: tuple[int, int] = (0, 0)
    """Width and height as stored; 0, like `megapixels`, until `measure` sets them."""

    @property
    def is_video(self) -> bool:
        return kind(self.source) == "video"


@dataclass(frozen=True)
class Failure:
    name: str
    reason: str


@dataclass(frozen=True)
class Naming:
    """The rule for an output's name: the input's, with another format's ending and a suffix before it.

    With `sheets`, a picture of before and after stands beside each output.
    """

    format: str | None = None
    """A key of `FORMAT_SUFFIXES`, or of `VIDEO_SUFFIXES` for videos, or None for the input's own."""
    suffix: str = ""
    sheets: bool = False

    def __post_init__(self) -> None:
        if "/" in self.suffix or os.sep in self.suffix or "\0" in self.suffix:
            raise ValueError(f"--suffix must not contain a slash, got {self.suffix!r}")

    def name(self, given: str) -> str:
        stem, ending = os.path.splitext(given)
        suffixes, formats = _written(given)
        if self.format in suffixes and formats.get(ending.lower()) != formats[suffixes[self.format]]:
            ending = suffixes[self.format]
        return f"{stem}{self.suffix}{ending}"


def _written(name: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The names of formats, and the formats by their extensions, that this photo or video is written in."""
    return (VIDEO_SUFFIXES, VIDEO_FORMATS) if kind(name) == "video" else (FORMAT_SUFFIXES, FORMATS)


def noun(jobs: Sequence[Job]) -> str:
    """What the jobs restore: a photo, a video, or a file of either kind."""
    videos = sum(job.is_video for job in jobs)
    return "photo" if not videos else "video" if videos == len(jobs) else "file"


@dataclass
class Plan:
    """The photos to restore, and those that are left out with the reasons.

    `links` counts further names of photos that are in the list, `others` files that are not pictures.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    links: int = 0
    others: int = 0


def plan(
    source: Path, output: Path, naming: Naming | None = None, *, empty: bool = False, skip: bool = False
) -> Plan:
    """Makes the plan.

    Where photos and outputs share a folder, `skip` leaves out photos that are outputs of others. Raises
    ValueError if there are no photos (unless it may be `empty`), if an output cannot be written, or if one
    would overwrite an input or another output.
    """
    naming = naming or Naming()
    if "-" in (str(source), str(output)):
        raise ValueError(
            "-: standard input and output are not supported: give a file name (./- for a file called -)"
        )
    made = _of_folder(source, output, naming) if source.is_dir() else _of_file(source, output, naming)
    if not made.jobs and not made.failures and not empty:
        raise ValueError(f"there are no photos or videos in {source}")
    made.jobs = _kept_apart(_not_made(made.jobs) if skip else made.jobs)
    _take_out_long_names(made, naming)
    for folder in {job.target.parent for job in made.jobs}:
        check_writable(folder, setting="OUTPUT", folder=True)
    _refuse_overwriting(made.jobs, naming)
    return made


def _not_made(jobs: list[Job]) -> list[Job]:
    """The jobs without photos that an earlier command made of others, sheets of both among them."""
    targets = {job.target.resolve() for job in jobs if job.target != job.source}
    made = targets | {sheet_of(target) for target in targets}
    return [job for job in jobs if job.source.resolve() not in made]


def _refuse_overwriting(jobs: list[Job], naming: Naming) -> None:
    """Raises ValueError if an output or a sheet would overwrite an input, or a sheet an output."""
    inputs = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in inputs:
            itself = job.target.resolve() == job.source.resolve()
            raise ValueError(
                f"{job.target} is one of the {noun(jobs)}s to restore and would be overwritten: name another "
                f"OUTPUT{'' if itself else ', or add --skip-existing if an earlier command made it'}"
            )
    taken = inputs | {job.target.resolve() for job in jobs}
    for sheet in (sheet_of(job.target) for job in jobs if naming.sheets):
        if sheet.resolve() in taken:
            raise ValueError(
                f"{sheet} is both a photo's name and that of another one's picture of before and after: "
                "leave --compare out, or rename the photo"
            )


def sheet_of(target: Path) -> Path:
    """The picture of before and after beside an output."""
    return target.with_name(target.name + SHEET_ENDING)


def _kept_apart(jobs: list[Job]) -> list[Job]:
    """If several photos, such as a.jpg and a.png, would get one output, the converted ones keep their own
    endings within the name: a.jpg.png. Raises ValueError if that name is taken too."""
    times = Counter(job.target for job in jobs)
    apart = []
    for job in jobs:
        ending = job.target.suffix
        if times[job.target] > 1 and job.source.suffix.lower() != ending:
            stem = job.target.name.removesuffix(ending)
            job = replace(job, target=job.target.with_name(f"{stem}{job.source.suffix}{ending}"))
        apart.append(job)
    times = Counter(job.target for job in apart)
    for job in apart:
        if times[job.target] > 1:
            raise ValueError(f"several photos would become {job.target}, {job.name} one of them: rename one")
    return apart


def _take_out_long_names(made: Plan, naming: Naming) -> None:
    """Turns jobs whose files' names would be too long for the file system into failures."""
    ending, option = (SHEET_ENDING, "--compare") if naming.sheets else ("", "--suffix")
    kept = []
    for job in made.jobs:
        if len(os.fsencode(job.target.name + ending)) <= LONGEST_NAME:
            kept.append(job)
            continue
        longer = f"give a shorter {option}" if option == "--suffix" else f"leave {option} out"
        reason = f"the output's name is longer than {LONGEST_NAME} bytes: {longer}, or rename the photo"
        made.failures.append(Failure(job.name, reason))
    made.jobs = kept


def _of_folder(source: Path, output: Path, naming: Naming) -> Plan:
    if output.exists() and not output.is_dir():
        raise ValueError(f"{source} is a folder, but {output} is a file: name a folder to write to")
    if not output.exists() and kind(output.name or "folder") != "other":
        what = kind(output).replace("unreadable", "photo")
        raise ValueError(f"{source} is a folder, but {output} is a {what}'s name: name a folder to write to")
    inside = output.is_dir() and not output.samefile(source)
    listing = look_through(source, avoid=output if inside else None, videos=True)
    made = Plan(links=listing.links, others=listing.others)
    for path in (*listing.photos, *listing.videos):
        within = path.relative_to(source)
        _add(made, path, output / within.with_name(naming.name(path.name)), str(within))
    for path, reason in sorted(listing.left_out.items()):
        made.failures.append(Failure(str(path.relative_to(source)), reason))
    return made


def _of_file(source: Path, output: Path, naming: Naming) -> Plan:
    if not source.exists():
        raise ValueError(f"there is no photo, video or folder {source}")
    made = Plan()
    target = output / naming.name(source.name)
    if not output.is_dir() and kind(output.name or "folder") != "other":
        suffixes, formats = _written(source)
        if suffix_of(output) not in formats:
            what = f"of a {kind(source)} " if "video" in (kind(source), kind(output)) else ""
            raise ValueError(
                f"{output}: {suffix_of(output)} {what}cannot be written: name it {_endings(source)}"
            )
        wanted = formats[suffixes[naming.format]] if naming.format in suffixes else naming.format
        if wanted is not None and formats[suffix_of(output)] != wanted:
            raise ValueError(
                f"--format {naming.format} does not match OUTPUT {output.name}: leave --format out or "
                "rename OUTPUT"
            )
        target = output
    elif not output.exists() and _LIKE_A_SUFFIX.fullmatch(suffix_of(output)):
        raise ValueError(
            f"{output}: {suffix_of(output)} is not a {noun([Job(source, output, '')])} format: name it "
            f"{_endings(source)}, or create {output} first if it is a folder"
        )
    if kind(source) == "unreadable":
        made.failures.append(Failure(source.name, why_not(source)))
    else:
        _add(made, source, target, source.name)
    return made


def _add(made: Plan, source: Path, target: Path, name: str) -> None:
    """Adds a job, or a failure with the reason why its output cannot be written."""
    ending = suffix_of(target)
    if ending not in _written(source)[1]:
        what = READABLE.get(ending, ending or "a name without suffix")
        fix = "mp4" if kind(source) == "video" else "png"
        made.failures.append(Failure(name, f"{what} is not a format that can be written: add --format {fix}"))
    elif target.is_dir():
        made.failures.append(Failure(name, f"{target} is a folder: name another OUTPUT"))
    else:
        made.jobs.append(Job(source, target, name))


def _endings(source: Path) -> str:
    return ", ".join(f"*{suffix}" for suffix in dict.fromkeys(_written(source)[0].values()))


def check_quality(jobs: list[Job]) -> None:
    """Raises ValueError if no output is of a format that has a quality."""
    written = dict.fromkeys(FORMATS[suffix_of(job.target)] for job in jobs if not job.is_video)
    if written and not any(name in LOSSY for name in written) and noun(jobs) == "photo":
        raise ValueError(
            f"--quality: {' and '.join(written)} has no quality, only {', '.join(LOSSY)} have: leave it out, "
            "or add --format jpg"
        )


def measure(jobs: list[Job], *, no_videos: str = "") -> tuple[list[Job], list[Failure]]:
    """The jobs with their sizes, and the failures of those whose headers cannot be read.

    `no_videos` is the reason for which no video is restored, if none is.
    """
    measured, failures = [], []
    for job in jobs:
        try:
            measured.append(_measured_video(job, no_videos) if job.is_video else _measured(job))
        except PhotoError as error:
            failures.append(Failure(job.name, error.reason))
        except DecodingError as error:
            failures.append(Failure(job.name, str(error)))
    return measured, failures


def _measured(job: Job) -> Job:
    header = photo_header(job.source)
    return replace(job, megapixels=header.megapixels, size=(header.width, header.height))


def _measured_video(job: Job, no_videos: str) -> Job:
    from restora.video.reading import look

    if no_videos:
        raise DecodingError(no_videos)
    header = look(job.source)
    width, height = header.width, header.height
    frames = max(header.frames, 1)  # where the number is not known
    return replace(job, megapixels=frames * width * height / 1e6, size=(width, height))


def settle_existing(jobs: list[Job], *, overwrite: bool, skip: bool) -> list[Job]:
    """The jobs to do if some outputs exist.

    Raises ValueError if neither `overwrite` nor `skip` is set.
    """
    existing = [job for job in jobs if job.target.exists()]
    if not existing or overwrite:
        return jobs
    if skip:
        return [job for job in jobs if not job.target.exists()]
    raise ValueError(
        f"{existing[0].target} exists{f' (and {len(existing) - 1} more)' if len(existing) > 1 else ''}: "
        "add --overwrite to replace, or --skip-existing to restore only what is missing"
    )
