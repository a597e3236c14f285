"""Classical filters on exactly the photos on which the runs were evaluated.

Enters: a group of denoising runs, whose exact inputs `inputs.py` finds. Leaves: one row per filter, scored
like the runs (outputs clamped and rounded to 8 bits), cached in `baselines.json` beside the runs, with a
fingerprint of the inputs and the PSNR of each, so that rows of other photos or other noise are never used.
Several groups of runs in one folder have an entry each: the newest on top, the rest in `others`.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restora.artifact.selection import problem
from restora.degradations.base import Degradation
from restora.files import read_json, write_json
from restora.registry import build
from restora.reporting.inputs import HeldOut, held_out_photos
from restora.reporting.runs import Group, PhotoScore, Run, inputs, same_inputs
from restora.reporting.values import finite, lookup

log = logging.getLogger(__name__)
FILE = "baselines.json"
Step = Callable[[str, int, int], None]
"""Called with (filter, units of work done, units in all)."""


@dataclass(frozen=True)
class Baseline:
    """A classical filter over the held-out photos. `seconds` is the mean per photo."""

    name: str
    psnr: float
    ssim: float
    seconds: float | None
    images: list[PhotoScore]


def noise_level(run: Run) -> float | None:
    """Sigma (8-bit scale) of a run against Gaussian noise of one level; None for every other degradation."""
    try:
        made = build(run.config.get("degradation"), "degradation")
    except ValueError:
        return None
    found = made.severity if isinstance(made, Degradation) else None
    return found.low if found is not None and found.name == "sigma" and found.low == found.high else None


def home(group: Group, root: Path) -> Path:
    """The folder of `baselines.json`: the common parent of the group's runs, within `root`."""
    common = Path(os.path.commonpath([run.folder.resolve() for run in group.scored]))
    return common if common.is_relative_to(root.resolve()) else root


def stored(group: Group, root: Path) -> list[Baseline]:
    """The cached rows for this group's photos, best first; empty if the cache is of other photos."""
    if not group.scored:
        return []
    for folder in dict.fromkeys((home(group, root), *(run.folder.parent for run in group.scored), root)):
        for entry in _entries(folder / FILE):
            if _is_of(entry, group):
                return _rows(entry)
    return []


def _is_of(entry: Any, group: Group) -> bool:
    """Whether the rows of an entry are of this group's photos, degraded and scored alike."""
    first = group.scored[0]
    wanted, known = lookup(entry, "degradation"), lookup(entry, "inputs")
    if wanted is not None and wanted != first.config.get("degradation"):
        return False
    if (lookup(entry, "protocol") or {}) != problem(first.record)["protocol"]:
        return False
    degraded = {name: finite(psnr) for name, psnr in known.items()} if isinstance(known, dict) else {}
    rows, names = _rows(entry), set(group.photo_names)
    same = bool(rows) and all({image.name for image in row.images} == names for row in rows)
    return same and same_inputs(degraded, inputs(first))


def _rows(entry: Any) -> list[Baseline]:
    """Best first."""
    listed = lookup(entry, "rows")
    rows = [row for row in map(_row, listed if isinstance(listed, list) else []) if row is not None]
    return sorted(rows, key=lambda row: -row.psnr)


def _entries(path: Path) -> list[Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return []
    others = lookup(content, "others")
    return [content, *(others if isinstance(others, list) else [])]


def _row(row: Any) -> Baseline | None:
    name, psnr, ssim = lookup(row, "name"), finite(lookup(row, "psnr")), finite(lookup(row, "ssim"))
    listed = lookup(row, "images")
    if not isinstance(name, str) or psnr is None or ssim is None or not isinstance(listed, list):
        return None
    images = [
        PhotoScore(image["name"], finite(image.get("psnr")), finite(image.get("ssim")))
        for image in listed
        if isinstance(lookup(image, "name"), str)
    ]
    return Baseline(name, psnr, ssim, finite(lookup(row, "seconds")), images)


def compute(
    group: Group, root: Path, filters: Mapping[str, Callable[[Any, float], Any]], step: Step
) -> list[Baseline]:
    """Runs every filter on every held-out photo, or takes the cached rows if the inputs are the same.

    Raises ValueError if the degradation is not Gaussian noise of one level, or the inputs are not available.
    """
    sigma = noise_level(group.scored[0]) if group.scored else None
    if sigma is None:
        raise ValueError("the classical filters are denoisers for Gaussian noise of one level")
    photos = held_out_photos(group)
    marks = {name: _fingerprint(load()) for name, load in photos.items()}
    path = home(group, root) / FILE
    for entry in _entries(path):
        same = lookup(entry, "photos") == marks and _is_of(entry, group)
        if same and set(filters) == {row.name for row in _rows(entry)}:
            return _rows(entry)
    images: dict[str, list[PhotoScore]] = {name: [] for name in filters}
    seconds: dict[str, list[float]] = {name: [] for name in filters}
    for index, load in enumerate(photos.values()):
        photo = load()
        for place, (name, restore) in enumerate(filters.items()):
            step(name, index * len(filters) + place, len(photos) * len(filters))
            started = time.perf_counter()
            restored = restore(photo.degraded, sigma)
            seconds[name].append(time.perf_counter() - started)
            images[name].append(PhotoScore(photo.name, *_score(restored, photo, group.scored[0])))
    rows = [_summed_up(name, images[name], seconds[name]) for name in filters]
    try:
        _write(path, rows, marks, group)
    except OSError as error:
        log.warning("the baselines are not kept for later: %s: %s", path, error.strerror)
    return sorted(rows, key=lambda row: -row.psnr)


def _summed_up(name: str, images: list[PhotoScore], seconds: Sequence[float]) -> Baseline:
    psnr, ssim = _mean([image.psnr for image in images]), _mean([image.ssim for image in images])
    return Baseline(name, psnr, ssim, _mean(seconds), images)


def _score(restored: Any, photo: HeldOut, run: Run) -> tuple[float | None, float | None]:
    """PSNR (dB) and SSIM of one photo by the protocol of the run."""
    import torch

    from restora.evaluation.protocol import Protocol
    from restora.evaluation.scorer import Scorer

    answer, degraded, clean = (
        torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)[None])).float()
        for x in (restored, photo.degraded, photo.clean)
    )
    protocol = Protocol.of_run(run.config.get("protocol"), channels=clean.shape[1], scale=1)
    (row,) = Scorer(protocol=protocol).rows(answer, degraded, clean)
    return row["psnr"], row["ssim"]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _fingerprint(photo: HeldOut) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(photo.degraded).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(photo.clean).tobytes())
    return digest.hexdigest()


def _write(path: Path, rows: Sequence[Baseline], marks: Mapping[str, str], group: Group) -> None:
    run = group.scored[0]
    others = [
        {key: value for key, value in entry.items() if key != "others"}
        for entry in _entries(path)
        if isinstance(entry, dict) and not _is_of(entry, group)
    ]
    content = {
        "format": 1,
        "degradation": run.config.get("degradation"),
        "protocol": problem(run.record)["protocol"],
        "photos": dict(marks),
        "inputs": inputs(run),
        "rows": [
            asdict(row) | {"images": [{"name": i.name, "psnr": i.psnr, "ssim": i.ssim} for i in row.images]}
            for row in rows
        ],
        "others": others,
    }
    write_json(path, content)
