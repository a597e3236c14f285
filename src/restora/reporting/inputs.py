"""The held-out photos of a group of runs, degraded exactly as for their networks.

A run keeps the exact inputs of its first photos (`images/<photo>_degraded.npy`, float32, neither clipped nor
rounded). If that is not all of them, the inputs are recreated from the photos and the degradation of the
run's configuration, whose noise is a function of each photo's name, and compared with the kept ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restora.evaluation.benchmarks.held_out import photo_data
from restora.reporting.runs import Group, Run
from restora.types import Batch

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """One held-out photo, as the networks' input and clean, float32 (H,W,C) on the [0,1] scale."""

    name: str
    degraded: Floats
    clean: Floats


Photos: TypeAlias = dict[str, Callable[[], HeldOut]]
"""Photo name -> a function that reads it, because all photos may be too large for the memory."""


def held_out_photos(group: Group) -> Photos:
    """The inputs of all held-out photos. Raises ValueError if they are not kept and cannot be recreated."""
    for run in group.scored:
        if all(_is_kept(run, name) for name in group.photo_names):
            return {name: partial(_kept, run, name) for name in group.photo_names}
    reasons = []
    for run in group.scored:
        try:
            return _made_anew(run, group.photo_names)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    why = f", and they cannot be recreated: {reasons[0]}" if reasons else ""
    raise ValueError(
        f"no run kept the exact degraded photos (images/*_degraded.npy) of all its held-out photos{why}"
    )


def _is_kept(run: Run, name: str) -> bool:
    return all(path.is_file() for path in _files(run, name))


def _files(run: Run, name: str) -> tuple[Path, Path]:
    return run.picture(name, "_degraded.npy"), run.picture(name, "_clean.png")


def _kept(run: Run, name: str) -> HeldOut:
    exact, clean = _files(run, name)
    with Image.open(clean) as image:
        original = np.atleast_3d(np.asarray(image, dtype=np.float32) / np.float32(255))
    return HeldOut(name, _array(exact), original.astype(np.float32))


def _array(path: Path) -> Floats:
    """The array of a file. Raises a ValueError that names a file that is no array, or is truncated."""
    try:
        # mapped, because a header that claims terabytes would otherwise allocate them
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False), dtype=np.float32)
    except Exception as error:  # numpy parses the header as Python and passes its errors on
        raise ValueError(f"{path} cannot be read as an array: {error}") from error


def _made_anew(run: Run, names: list[str]) -> Photos:
    data = photo_data(run.config)
    data.setup("test")
    dataset: Any = data.test_dataloader().dataset
    places = {dataset.store.entries[photo].name: place for place, (photo,) in enumerate(dataset.batches)}
    missing = [name for name in names if name not in places]
    if missing:
        raise ValueError(f"{data.source.name} no longer has the photo {missing[0]}")

    def make(name: str) -> HeldOut:
        batch: Batch = data.on_after_batch_transfer(dataset[places[name]], 0)
        assert batch.clean is not None
        degraded, clean = (photo[0].permute(1, 2, 0).numpy() for photo in (batch.middle, batch.clean))
        return HeldOut(name, degraded, clean)

    for name in [name for name in names if _is_kept(run, name)][:2]:
        one, other = make(name), _kept(run, name)
        if one.degraded.shape != other.degraded.shape or np.abs(one.degraded - other.degraded).max() > 1e-3:
            raise ValueError(f"{name}: the recreated degraded photo differs from the one in {run.folder}")
    return {name: partial(make, name) for name in names}
