"""Near-duplicates between training photos and evaluation photos, found before a run's first step.

Enters: the run's data and folders of test photos. Leaves: a `LeakReport` for `run.json` and the model card.
The run's own validation and held-out photos count as test sets too.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from restora.data.module import PhotoData
from restora.data.progress import Advance, progress
from restora.data.sources import Split
from restora.data.store import PhotoStore
from restora.evaluation.leakage import (
    Fingerprints,
    LeakReport,
    Pixels,
    find_leaks,
    fingerprints,
    fingerprints_of_files,
    known_testsets,
)
from restora.photos.reading import list_photos

_EVALUATION_SETS: dict[Split, str] = {"val": "this run's validation set", "test": "this run's held-out set"}


def check_leakage(
    data: PhotoData,
    *,
    testsets: str | Path | None,
    folders: Sequence[str | Path] = (),
    max_seconds: float = 60.0,
) -> LeakReport:
    """Compares the packed training photos with all evaluation photos.

    These are the validation and held-out photos, each sub-folder of `testsets` (null: none), and further
    `folders`.

    Training photos that are not processed within `max_seconds` are left out, as the report states. Raises
    ValueError for a folder that does not exist or holds no photos.
    """
    deadline = time.monotonic() + max_seconds
    tested = {name: stores for split, name in _EVALUATION_SETS.items() if (stores := data.stores(split))}
    known_files = {} if testsets is None else known_testsets(testsets)
    files = known_files | named_folders(folders, taken=known_files)
    learnt = data.stores("train")
    total = sum(len(_distinct(store)) for store in learnt.values())
    photos = (
        total
        + sum(len(store) for stores in tested.values() for store in stores.values())
        + sum(map(len, files.values()))
    )
    with progress("looking for near-duplicates", photos) as done:
        known: dict[str, Fingerprints] = {}
        for name, stores in tested.items():
            known[name] = fingerprints(_counted(_pixels(stores), done))
        for name, paths in files.items():
            known[name] = fingerprints_of_files(paths)
            done(len(paths))
        training = fingerprints(_counted(_pixels(learnt), done), deadline=deadline)
    return find_leaks(training, known, training_total=total)


def named_folders(folders: Sequence[str | Path], *, taken: Iterable[str] = ()) -> dict[str, list[Path]]:
    """The photos of the user's folders, by folder name, or by path where the name is already in use.

    Raises ValueError for a folder without photos.
    """
    found: dict[str, list[Path]] = {}
    names = {*taken}
    for folder in folders:
        path = Path(folder).expanduser().absolute()
        photos = list_photos(path) if path.is_dir() else []
        if not photos:
            state = "holds no photos" if path.is_dir() else "does not exist"
            raise ValueError(f"leakage.folders: {path} {state}: name folders of test photos")
        found[str(path) if path.name in names else path.name] = photos
        names.add(path.name)
    return found


def _distinct(store: PhotoStore) -> dict[int, int]:
    """Offset of a clean photo -> its number; a clean photo shared by several degraded ones occurs once."""
    return {entry.clean.offset: number for number, entry in reversed(list(enumerate(store.entries)))}


def _pixels(stores: Mapping[str, PhotoStore]) -> Iterator[tuple[str, Pixels]]:
    for store in stores.values():
        for number in sorted(_distinct(store).values()):
            yield store.entries[number].name, store.clean(number)


def _counted(photos: Iterable[tuple[str, Pixels]], done: Advance) -> Iterator[tuple[str, Pixels]]:
    for photo in photos:
        yield photo
        done(1)
