"""Reads the runs below a folder for a report, from their files alone.

Enters: run folders in any state: finished, running, killed, half-written. Leaves: `Run`s in which missing or
invalid values are None, and `Group`s of runs that may be compared, because they restored the same held-out
photos of the same degradation. An unreadable run record becomes a `Problem`.
"""

import csv
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from restora.artifact.selection import problem
from restora.evaluation.results import SAME_INPUT
from restora.files import json_text, read_json
from restora.monitor import Monitor
from restora.photos.names import file_stem
from restora.registry import stored
from restora.reporting.naming import Name, names
from restora.reporting.values import as_text, finite, flat, lookup
from restora.run_state import status_of
from restora.vocabulary import AUTO, precision_in_one_spelling
from restora.words import NOISY_REFERENCE


@dataclass(frozen=True)
class Problem:
    """A run folder that could not be read, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class PhotoScore:
    """One held-out photo: dB and SSIM of the restored and of the degraded photo; seconds to restore it."""

    name: str
    psnr: float | None
    ssim: float | None
    input_psnr: float | None = None
    input_ssim: float | None = None
    seconds: float | None = None


@dataclass
class Run:
    """One run. `label` is unique in its group."""

    folder: Path
    record: dict[str, Any]
    name: Name = field(default_factory=Name)
    photos: list[PhotoScore] = field(default_factory=list)
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    """(step, seconds, monitored metric in validation)"""
    status: str = field(init=False)
    """As it was when the record was read: a run may end while a report is made."""

    def __post_init__(self) -> None:
        self.status = status_of(self.record, self.folder)

    def number(self, *path: str) -> float | None:
        """The finite number at `path` in run.json; None for anything else."""
        return finite(lookup(self.record, *path))

    def text(self, *path: str) -> str:
        """The text at `path` in run.json; empty for anything else."""
        value = lookup(self.record, *path)
        return value if isinstance(value, str) else ""

    @property
    def label(self) -> str:
        return self.name.label

    def picture(self, photo: str, ending: str) -> Path:
        """The file of a held-out photo, such as `a_clean.png`.

        Earlier versions named it without the photo's folders and without the part after its last dot;
        such a file is used unless it could belong to several photos.
        """
        path = self.folder / "images" / f"{file_stem(photo)}{ending}"
        if not path.exists() and [Path(one.name).stem for one in self.photos].count(Path(photo).stem) <= 1:
            return path.with_name(f"{Path(photo).stem}{ending}")
        return path

    @property
    def monitor(self) -> Monitor:
        """The monitor of the run; PSNR if its configuration does not set one."""
        try:
            return Monitor.of(self.config)
        except ValueError:
            return Monitor()

    def by_photo(self, metric: str) -> dict[str, float]:
        """A metric by the held-out photo's name, for photos that have it."""
        images = lookup(self.record, "test", "images")
        rows = [row for row in images if isinstance(row, dict)] if isinstance(images, list) else []
        known = {row["name"]: finite(row.get(metric)) for row in rows if isinstance(row.get("name"), str)}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def psnr(self) -> float | None:
        return self.number("test", "psnr")

    @property
    def ssim(self) -> float | None:
        return self.number("test", "ssim")

    @property
    def gain(self) -> float | None:
        """dB over the degraded photos."""
        before = self.number("test", "input_psnr")
        return None if self.psnr is None or before is None else self.psnr - before

    @property
    def seconds_per_photo(self) -> float | None:
        known = [photo.seconds for photo in self.photos if photo.seconds is not None]
        return sum(known) / len(known) if known else None

    @property
    def resuming(self) -> str:
        """The command that resumes the run, with the plugins and configuration folders that it needs."""
        try:
            typed = shlex.split(self.text("command"))
        except ValueError:
            typed = []
        plugins = self.config.get("plugins")
        named = plugins if isinstance(plugins, list) else []
        own = [word for module in named for word in ("--plugin", str(module))]
        own += [word for pair in pairwise(typed) if pair[0] == "--config-dir" for word in pair]
        return shlex.join(["restora", "train", f"resume={self.folder}", *own])

    @property
    def config(self) -> dict[str, Any]:
        value = self.record.get("config")
        return value if isinstance(value, dict) else {}


@dataclass
class Group:
    """Runs that may be compared, best first, those without held-out scores last."""

    title: str
    runs: list[Run]
    monitor: Monitor = field(default_factory=Monitor)
    """The monitor of all runs; PSNR if they have different ones."""

    @property
    def scored(self) -> list[Run]:
        return [run for run in self.runs if run.psnr is not None]

    @property
    def against_noisy(self) -> bool:
        """Whether a run says that the photos in place of clean ones are noisy, which holds for all runs."""
        return any(run.text("reference") == NOISY_REFERENCE for run in self.runs)

    @property
    def input_psnr(self) -> float | None:
        return next((run.number("test", "input_psnr") for run in self.scored), None)

    @property
    def input_ssim(self) -> float | None:
        return next((run.number("test", "input_ssim") for run in self.scored), None)

    @property
    def photo_names(self) -> list[str]:
        return [photo.name for photo in self.scored[0].photos] if self.scored else []


def read_runs(root: Path) -> tuple[list[Run], list[Problem]]:
    """All runs at or below `root`, in the order of their folders, and the folders that could not be read."""
    runs: list[Run] = []
    problems: list[Problem] = []
    for folder in _run_folders(root):
        try:
            record = read_json(folder / "run.json")
        except (OSError, ValueError) as error:  # JSON and Unicode errors are ValueErrors
            problems.append(Problem(folder, f"run.json cannot be read: {error}"))
            continue
        if not isinstance(record, dict) or record.get("format") not in (1, 2):
            found = record.get("format") if isinstance(record, dict) else type(record).__name__
            problems.append(Problem(folder, f"run.json is of format {found!r}, expected 1 or 2"))
            continue
        _spell_precision(record)
        run = Run(folder, record, photos=_photo_scores(record))
        run.curve = _curve(run, run.monitor)
        runs.append(run)
    return runs, problems


def _spell_precision(record: dict[str, Any]) -> None:
    """One word for what a run computed in: `float32`, `32-true` and an `auto` that was it do not differ."""
    trainer = lookup(record, "config", "trainer")
    if isinstance(trainer, dict) and "precision" in trainer:
        trainer["precision"] = precision_in_one_spelling(record.get("precision") or trainer["precision"])


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a run.json; a run's own subfolders are not searched."""
    for parent, folders, files in os.walk(root):
        if "run.json" in files:
            folders.clear()
            yield Path(parent)
        folders.sort()


def _photo_scores(record: dict[str, Any]) -> list[PhotoScore]:
    images = lookup(record, "test", "images")
    scores = []
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict) and isinstance(image.get("name"), str):
            names = ("psnr", "ssim", "input_psnr", "input_ssim", "seconds")
            scores.append(PhotoScore(image["name"], *(finite(image.get(name)) for name in names)))
    return scores


def _curve(run: Run, monitor: Monitor) -> list[tuple[float, float, float]]:
    """The rows of metrics.csv with the monitored metric; a last row that a crash cut off is left out."""
    points, path = [], run.folder / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    point = (float(row["step"]), float(row["seconds"]), float(row[monitor.metric]))
                except (KeyError, TypeError, ValueError):
                    continue
                if all(map(math.isfinite, point)):
                    points.append(point)
    except (OSError, UnicodeDecodeError, csv.Error):
        return points
    return points


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root else folder.name


def group_runs(runs: Sequence[Run], root: Path) -> list[Group]:
    """Groups and names the runs by what they restored; the group with the newest run is first."""
    problems: dict[str, list[Run]] = {}
    for run in runs:
        problems.setdefault(_what_it_restores(run), []).append(run)
    groups = [group for members in problems.values() for group in _by_photos(members)]
    for members in groups:
        called = names([run.record for run in members], [_below(run.folder, root) for run in members])
        for run, name in zip(members, called, strict=True):
            run.name = name
    made = [_group(members) for members in groups]
    _tell_apart(made)
    return sorted(made, key=lambda group: max(run.text("started") for run in group.runs), reverse=True)


def _tell_apart(groups: Sequence[Group]) -> None:
    """Adds to equal titles the settings that differ, or where none does, numbers by age."""
    for title in {group.title for group in groups}:
        alike = [group for group in groups if group.title == title]
        alike.sort(key=lambda group: min(run.text("started") for run in group.runs))
        settings = [flat(problem(group.runs[0].record)) for group in alike]
        known = sorted({key for one in settings for key in one})
        keys = [key for key in known if len({as_text(one.get(key)) for one in settings}) > 1]
        for group, one in zip(alike, settings, strict=True):
            group.title = " · ".join([title, *(f"{key}={as_text(one.get(key))}" for key in keys[:3])])
        times: Counter[str] = Counter()
        for group in alike:
            times[group.title] += 1
            if (number := times[group.title]) > 1:
                group.title += f" · other photos ({number})"


def _by_photos(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one problem by their held-out photos, which may have changed between them.

    Runs without figures of photos join the first.
    """
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: not inputs(run)):
        same = next((group for group in groups if same_inputs(inputs(group[0]), inputs(run))), None)
        if same is None:
            groups.append(same := [])
        same.append(run)
    return groups


def inputs(run: Run) -> dict[str, float | None]:
    """PSNR of the degraded photo by its name; empty for a run without a score."""
    return {photo.name: photo.input_psnr for photo in run.photos} if run.psnr is not None else {}


def same_inputs(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> bool:
    """Whether the photos have the same names and, where known, are degraded alike."""
    if not one or not other:
        return True
    pairs = [(one[name], other[name]) for name in one if name in other]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return one.keys() == other.keys() and all(abs(a - b) <= SAME_INPUT for a, b in known)


def _group(runs: Sequence[Run]) -> Group:
    """A group of runs, sorted by the held-out figure of their common monitor, or by PSNR."""
    monitors = {run.monitor for run in runs}
    monitor = monitors.pop() if len(monitors) == 1 else Monitor()
    for run in runs:
        if run.monitor != monitor:
            run.curve = _curve(run, monitor)
    return Group(_title(runs), sorted(runs, key=lambda run: place(run.psnr, score_of(run, monitor))), monitor)


def score_of(run: Run, monitor: Monitor) -> float | None:
    """The held-out mean of the monitored metric, signed so that more is better."""
    return signed(run.number("test", monitor.name), monitor)


def signed(value: float | None, monitor: Monitor) -> float | None:
    """A figure of the monitored metric, signed so that more is better."""
    return -value if value is not None and monitor.direction == "min" else value


def place(psnr: float | None, score: float | None) -> tuple[bool, bool, float]:
    """A sort key: rows with a score by that, then rows with only a PSNR by that, then the rest."""
    value = psnr if score is None else score
    return psnr is None, score is None, -(value or 0.0)


def _what_it_restores(run: Run) -> str:
    """A key that is equal for runs that may be compared: task, degradation, photos, channels, protocol."""
    return json_text(problem(run.record), sort_keys=True)


def named(node: Any, kind: str | None = None) -> Any:
    """A description with the names of parts in place of the class paths of the first edition.

    Any other description is returned unchanged, without importing a part.
    """
    return stored(node, kind) if '"restora.' in json_text(node) else node


def _title(runs: Sequence[Run]) -> str:
    first = runs[0]
    parts = [first.text("task").replace("_", " ") or "unknown task"]
    degradation = first.config.get("degradation")
    if isinstance(degradation, dict):
        parts.append(_in_words(degradation))
    photos = max(len(run.photos) for run in runs)
    if photos:
        parts.append(f"{photos} held-out photo{'s' if photos > 1 else ''}")
    if any(run.text("reference") == NOISY_REFERENCE for run in runs):
        parts.append("against noisy photos")
    return " · ".join(part for part in parts if part)


def _in_words(node: dict[str, Any]) -> str:
    """A degradation's configuration in a few words: `gaussian noise sigma 25`."""
    node = named(node, "degradation")
    name = str(node.get("_target_", "")).rpartition(".")[2].replace("_", " ")
    plain = [f"{key} {value}" for key, value in node.items() if isinstance(value, int | float | str | list)]
    words = " ".join([name, *(word for word in plain if not word.startswith("_"))])
    return words if len(words) <= 60 else name


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: name -> value per run as text, "" where a run has none.

    Paths into the run's own folder count as equal.
    """
    settings = []
    for run in runs:
        own = str(run.config.get("run_dir") or run.folder)
        settings.append(
            {name: as_text(value).replace(own, "RUN") for name, value in flat(run.config).items()}
        )
    names = sorted({name for one in settings for name in one})
    found = {}
    for name in names:
        across = [one.get(name, "") for one in settings]
        known = set(across) - ({AUTO} if name == "trainer.precision" else set())  # a queued run: not decided
        if len(known) > 1 and name not in ("name", "output_dir"):
            found[name] = across
    return found
