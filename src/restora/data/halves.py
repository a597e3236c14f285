"""The two halves of a set of pairs, by the names that the data sets of the field give folders and files."""

import re
from collections.abc import Iterable
from pathlib import Path

from restora.data.pairs import bare
from restora.photos.listing import list_photos

_CLEAN = frozenset(
    (
        *("clean", "gt", "groundtruth", "ground_truth", "hr", "hq", "target", "targets", "sharp", "high"),
        *("norain", "reference"),
    )
)
_DEGRADED = frozenset(
    ("degraded", "lq", "lr", "input", "inputs", "blur", "blurry", "noisy", "low", "rain", "rainy")
)
"""Names in lower case: GT and LQ, HR and LR, target and input, sharp and blur, high and low."""


def halves(folder: Path) -> tuple[Path, Path] | None:
    """The folders of the clean and of the degraded photos; None unless there is one of each.

    `clean` and `degraded` come before all other names.
    """
    usual = folder / "clean", folder / "degraded"
    if all(half.is_dir() for half in usual):
        return usual
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    clean = [path for path in folders if path.name.lower() in _CLEAN]
    degraded = [path for path in folders if path.name.lower() in _DEGRADED]
    return (clean[0], degraded[0]) if len(clean) == len(degraded) == 1 else None


def are_pairs(clean: Path, degraded: Path) -> bool:
    """Whether photos of the two have one name, unlike those of unrelated folders called `high` and `low`."""
    if (clean.name, degraded.name) == ("clean", "degraded"):
        return True
    names = [
        {bare(path.relative_to(half).with_suffix("").as_posix()) for path in list_photos(half)}
        for half in (clean, degraded)
    ]
    return not names[0].isdisjoint(names[1])


_OF_CLEAN = re.compile(r"(?<![a-z])(clean|gt|mean|reference|groundtruth|sharp)(?![a-z])", re.IGNORECASE)
_OF_DEGRADED = re.compile(r"(?<![a-z])(noisy|noise|real|degraded|blurry|lq)(?![a-z])", re.IGNORECASE)
"""Words in the names of files: SIDD's GT and NOISY, PolyU's mean and Real, RENOIR's Reference and Noisy."""


def pair_in_one_folder(files: Iterable[Path]) -> tuple[Path, Path] | None:
    """A clean and a degraded photo beside each other whose names differ in the word for it alone.

    None unless the clean halves of such pairs are a quarter of the photos at least.
    """
    files = list(files)
    clean = {key: path for path in files if (key := _without(_OF_CLEAN, path)) is not None}
    degraded = {key: path for path in files if (key := _without(_OF_DEGRADED, path)) is not None}
    both = sorted(clean.keys() & degraded.keys())
    return (clean[both[0]], degraded[both[0]]) if 4 * len(both) >= len(files) and both else None


def _without(word: re.Pattern[str], path: Path) -> tuple[Path, str] | None:
    rest, times = word.subn("", path.stem)
    return (path.parent, rest) if times else None
