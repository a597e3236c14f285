"""Matches degraded photos with their clean partners, by the same rule in training and evaluation.

Photos match by name: the path below their folder, without the file extension. A degraded name may end in its
scale (`0001x4`, and in the tracks of DIV2K `0001x4m`, `0001x4w2`), or in a suffix that the user sets
(`_LR_x4`). A partner may be a link to another photo of its folder, which lists each file once. Photos are
paired by order only on request.
"""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, get_args

from restora.data.packing import PhotoFile, fits
from restora.photos.errors import DataError, PhotoError
from restora.photos.kinds import kind
from restora.photos.reading import photo_size

log = logging.getLogger(__name__)
PairBy = Literal["name", "order"]
Size = tuple[int, int]
"""(H, W)."""
_SCALES = (1, 2, 3, 4, 8)
_SCALE_SUFFIX = re.compile(r"x\d{1,2}(?:[a-wyz]\d*)?$")
"""Matches the `x2` at the end of `sky_1920x1080x2`, and nothing in `sky_1920x1080`."""
_LISTED = 10
_LOOKED_AT = 64
"""Pairs whose headers are read to find the scale; all pairs are compared with it when they are packed."""


def pair_up(
    clean: Sequence[PhotoFile],
    degraded: Sequence[PhotoFile],
    *,
    by: PairBy = "name",
    suffix: str | None = None,
    settings: str = "data.source",
) -> list[PhotoFile]:
    """Each degraded photo with its clean one, in the order of the degraded ones.

    `suffix` is what degraded names append to the clean name; null means the scale. Raises `DataError` that
    names the photos without a partner; `settings` is the prefix of the configuration keys in its message.
    """
    if by not in get_args(PairBy):
        raise DataError(f"{settings}.pair_by must be {' or '.join(get_args(PairBy))}, got {by!r}")
    if by == "order":
        if len(clean) != len(degraded):
            raise DataError(
                f"{len(clean)} clean and {len(degraded)} degraded photos cannot be paired by order: take the "
                f"rest away, or pair by name ({settings}.pair_by=name)"
            )
        _warn_of_order(tuple(p.clean for p in clean), tuple(p.clean for p in degraded))
        return [PhotoFile(a.name, a.clean, b.clean) for a, b in zip(clean, degraded, strict=True)]
    partners = _in_both_forms(_by_place(clean))
    by_name = _in_both_forms({photo.name: photo for photo in clean})
    clean_links, degraded_links = _Links(clean), _Links(degraded)
    pairs, alone = [], []
    for photo, place in zip(degraded, _places(degraded), strict=True):
        found = _find(partners, place, suffix) or _find(by_name, photo.name, suffix)
        found = found or clean_links.find(place, bare(place, suffix))
        if found is None:
            alone.append(photo.clean)
        else:
            pairs.append(PhotoFile(photo.name, found.clean, photo.clean))
    taken = {pair.clean for pair in pairs}
    for photo, place in zip(clean, _places(clean), strict=True):
        if photo.clean in taken:
            continue
        if (found := degraded_links.find(place)) is None:
            alone.append(photo.clean)
        else:
            pairs.append(PhotoFile(photo.name, photo.clean, found.clean))
    if alone:
        listed = "\n".join(f"  {path}" for path in alone[:_LISTED])
        more = f"\n  and {len(alone) - _LISTED} more" if len(alone) > _LISTED else ""
        raise DataError(
            f"{len(alone)} of {len(clean)} clean and {len(degraded)} degraded photos have no partner of the "
            f"same name:\n{listed}{more}\n{_fix(clean, degraded, settings, unlike=not pairs)}"
        )
    return pairs


def _find(partners: dict[str, PhotoFile], name: str, suffix: str | None) -> PhotoFile | None:
    forms = (name, _composed(name))
    return next((partners[key] for one in forms for key in (one, bare(one, suffix)) if key in partners), None)


def _in_both_forms(partners: dict[str, PhotoFile]) -> dict[str, PhotoFile]:
    """The photos also by the composed form of their names: macOS writes é as e and an accent."""
    return {_composed(name): photo for name, photo in partners.items()} | partners


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def bare(name: str, suffix: str | None = None) -> str:
    """The name of a degraded photo without its suffix; null means that of the scale."""
    return _SCALE_SUFFIX.sub("", name) if suffix is None else name.removesuffix(suffix)


@lru_cache
def _warn_of_order(clean: tuple[Path, ...], degraded: tuple[Path, ...]) -> None:
    """Warns, once, if other pairs came out with numbers in order of their size, 2 before 10."""
    partners = dict(zip(clean, degraded, strict=True))
    for path, other in zip(sorted(clean, key=_by_numbers), sorted(degraded, key=_by_numbers), strict=True):
        if partners[path] != other:
            log.warning(
                "pairs by order: %s goes with %s, but with %s if its number counts; if that is right, give "
                "all numbers the same number of digits",
                *(path, partners[path].name, other.name),
            )
            return


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """A sorting key by which 2 comes before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())
    ]


class _Links:
    """Finds listed photos by further names of their files, links, which are not listed themselves."""

    def __init__(self, photos: Sequence[PhotoFile]) -> None:
        self.photos = photos
        self.folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, *places: str) -> PhotoFile | None:
        """The photo whose file also stands at one of the places."""
        if not self.photos:
            return None
        for place in places:
            path = self.root / place
            for link in self._files(path.parent).get(path.name, []):
                if (found := self.by_file.get(_identity(link))) is not None:
                    return found
        return None

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        """The photos in a folder by their names without extension, links too."""
        if folder not in self.folders:
            files = self.folders[folder] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if kind(path) == "photo" and path.is_file():
                    files.setdefault(path.stem, []).append(path)
        return self.folders[folder]

    @cached_property
    def root(self) -> Path:
        return _root(self.photos)

    @cached_property
    def by_file(self) -> dict[tuple[int, int], PhotoFile]:
        return {_identity(photo.clean): photo for photo in self.photos}


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _places(photos: Sequence[PhotoFile]) -> Iterator[str]:
    """The path of each photo below the folder that holds all, without its file extension."""
    if not photos:
        return iter(())
    root = _root(photos)
    return (photo.clean.relative_to(root).with_suffix("").as_posix() for photo in photos)


def _root(photos: Sequence[PhotoFile]) -> Path:
    return Path(os.path.commonpath([photo.clean.parent for photo in photos]))


def _by_place(photos: Sequence[PhotoFile]) -> dict[str, PhotoFile]:
    """Photos by place, except those that differ only in their extensions, which their names include."""
    places = list(_places(photos))
    times = Counter(places)
    return {place: photo for place, photo in zip(places, photos, strict=True) if times[place] == 1}


def _fix(clean: Sequence[PhotoFile], degraded: Sequence[PhotoFile], settings: str, *, unlike: bool) -> str:
    """Advice for the message, with the suffix that all degraded names share, if there is one.

    `unlike` is whether no photo has a partner.
    """
    names = sorted((photo.name for photo in clean), key=len, reverse=True)
    tails = {
        photo.name.removeprefix(start)
        for photo in degraded
        if (start := next((name for name in names if photo.name.startswith(name)), None)) is not None
    }
    if len(tails) == 1 and (tail := tails.pop()):
        return f"Set {settings}.degraded_suffix={tail}, or add what is missing or take these away."
    if unlike and len(clean) == len(degraded):
        return f"Give partners one name, or set {settings}.pair_by=order, which pairs them in sorted order."
    return "Add what is missing or take these away."


def infer_scale(pairs: Sequence[PhotoFile]) -> int:
    """How many times larger the clean photos are.

    This is the scale of most pairs; a pair that has another one, or cannot be read, is left out and named
    when it is packed, so it is 1 if none can be read. Raises `DataError` if no pair has one of the usual
    integer scales.
    """
    step = -(-len(pairs) // _LOOKED_AT)
    looked_at = [found for pair in pairs[::step] if (found := _sizes_of(pair)) is not None]
    looked_at = looked_at or [found for found in map(_sizes_of, pairs) if found is not None][:1]
    if not looked_at:
        return 1
    scales = Counter(scale for _, *sizes in looked_at if (scale := _scale_of(*sizes)) is not None)
    if scales:
        return scales.most_common(1)[0][0]
    first, (height, width), small = looked_at[0]
    raise DataError(
        f"{first.degraded} is {small[1]}x{small[0]}, its clean partner {first.clean} is {width}x{height}: "
        f"expected one of the scales {', '.join(map(str, _SCALES))}; give photos that fit, or set "
        "data.source.scale"
    )


def _sizes_of(pair: PhotoFile) -> tuple[PhotoFile, Size, Size] | None:
    """The pair with its clean and its degraded size; None if one of the two files cannot be read."""
    assert pair.degraded is not None
    try:
        return pair, photo_size(pair.clean), photo_size(pair.degraded)
    except PhotoError:
        return None


def _scale_of(large: Size, small: Size) -> int | None:
    return next((scale for scale in _SCALES if fits(large, small, scale)), None)
