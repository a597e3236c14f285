"""Where photos come from: each source lists the files of a split, and says before training what is missing.

`train` teaches, `val` chooses the checkpoint, `test` is only ever reported. A source reads names and, for
pairs, two headers; it decodes nothing.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from restora.data.packing import PhotoFile
from restora.data.photos import PHOTO_SUFFIXES, list_photos, photo_size
from restora.degradations.keyed import image_key

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_SCALES = (1, 2, 3, 4, 8)
_TRACK_SUFFIX = re.compile(r"x\d+\w*$")
"""What a degraded file may have behind the name of its clean partner: `0001x4`, `0001x4m`, `0001x4w2`."""


class DataError(ValueError):
    """A data set that is missing or not as it should be; the message says what to set or to run."""


class Source(ABC):
    """A data set of clean photos, or of pairs."""

    name: str
    """Names the packed store."""
    paired: bool = False
    """Whether degraded photos come with the clean ones."""

    @property
    def scale(self) -> int:
        """Sides of the clean photos over those of their degraded partners; 1 where there are none."""
        return 1

    @abstractmethod
    def check(self) -> None:
        """Raises `DataError` if training could not start; reads no photo."""

    @abstractmethod
    def photos(self, split: Split) -> list[PhotoFile]:
        """The files of one split, in a fixed order; none where a data set has no such split."""


class SamplePhotos(Source):
    """The natural colour photos that scikit-image ships: nothing to download, enough to see that it works."""

    name = "sample"
    _files = {
        "train": ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png"),
        "val": ("rocket.jpg",),
        "test": ("chelsea.png", "coffee.png"),
    }

    def check(self) -> None:
        for split in SPLITS:
            for photo in self.photos(split):
                if not photo.clean.is_file():
                    raise DataError(
                        f"{photo.clean} is missing: reinstall scikit-image (pip install scikit-image)"
                    )

    def photos(self, split: Split) -> list[PhotoFile]:
        import skimage

        folder = Path(skimage.__file__).parent / "data"
        return [PhotoFile(Path(name).stem, folder / name) for name in self._files[split]]


class Folder(Source):
    """Any folder of photos, with sub-folders, in any mix of formats.

    With a sub-folder `train` the splits are the sub-folders `train`, `val` and, if there is one, `test`. Else
    `val_fraction` and `test_fraction` of the photos are set aside by a hash of each name, so that photos added
    later move none of the others.
    """

    def __init__(
        self, *, root: str | Path | None, val_fraction: float = 0.1, test_fraction: float = 0.1
    ) -> None:
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            raise ValueError(
                "val_fraction is in (0, 1), test_fraction in [0, 1), their sum below 1; got "
                f"{val_fraction} and {test_fraction}"
            )
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.name = "folder" if self.root is None else (self.root.resolve().name or "folder")

    def check(self) -> None:
        for split in ("train", "val"):
            if not self.photos(split):
                raise DataError(self._nothing_in(split))

    def photos(self, split: Split) -> list[PhotoFile]:
        root = _existing(self.root)
        if (root / "train").is_dir():
            return _named(root / split, list_photos(root / split))
        return _share(_named(root, list_photos(root)), split, self.val_fraction, self.test_fraction)

    def _nothing_in(self, split: str) -> str:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in PHOTO_SUFFIXES))
        assert self.root is not None
        where = self.root / split if (self.root / "train").is_dir() else self.root
        return f"no photos for {split} in {where} ({kinds}): put some there, or set data.source.root"


class PairedFolder(Source):
    """Degraded photos with their clean partners: sub-folders `clean` and `degraded`, matched by name.

    They lie in `root` itself, split by fractions as in `Folder`, or in `root/train`, `root/val`, `root/test`.
    A degraded name may end in `x4` or the like; several degraded photos may share a clean one. `scale` null
    is inferred from the first pair.
    """

    paired = True

    def __init__(
        self,
        *,
        root: str | Path | None,
        scale: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        self._folder = Folder(root=root, val_fraction=val_fraction, test_fraction=test_fraction)
        self.root, self._scale = self._folder.root, scale
        self.name = self._folder.name

    @cached_property
    def scale(self) -> int:  # type: ignore[override]
        if self._scale is not None:
            return self._scale
        pairs = self.photos("train")
        if not pairs:
            raise DataError(
                f"no pairs for train in {self.root}: clean/ and degraded/ are to hold equal names"
            )
        return infer_scale(pairs[0])

    def check(self) -> None:
        for split in ("train", "val"):
            if not self.photos(split):
                raise DataError(
                    f"no pairs for {split} in {self.root}: clean/ and degraded/ are to hold equal names"
                )
        assert self.scale

    def photos(self, split: Split) -> list[PhotoFile]:
        root = _existing(self.root)
        if (root / "train").is_dir():
            return match_pairs(root / split) if (root / split).is_dir() else []
        return _share(match_pairs(root), split, self._folder.val_fraction, self._folder.test_fraction)


def match_pairs(folder: Path) -> list[PhotoFile]:
    """The pairs of `folder/clean` and `folder/degraded`. Raises `DataError` that names what has no partner."""
    halves = {}
    for half in ("clean", "degraded"):
        if not (folder / half).is_dir():
            raise DataError(
                f"{folder} has no sub-folder {half}/: pairs are {folder}/clean/* and {folder}/degraded/*"
            )
        halves[half] = _named(folder / half, list_photos(folder / half))
    return pair_up(halves["clean"], halves["degraded"])


def pair_up(clean: Sequence[PhotoFile], degraded: Sequence[PhotoFile]) -> list[PhotoFile]:
    """Each degraded photo with the clean one of its name. Raises `DataError` for those without partner."""
    by_name = {photo.name: photo for photo in clean}
    pairs, alone, taken = [], [], set()
    for photo in degraded:
        name = photo.name if photo.name in by_name else _TRACK_SUFFIX.sub("", photo.name)
        if name in by_name:
            pairs.append(PhotoFile(photo.name, by_name[name].clean, photo.clean))
            taken.add(name)
        else:
            alone.append(photo.clean)
    alone += [photo.clean for photo in clean if photo.name not in taken]
    if alone:
        listed = "\n".join(f"  {path}" for path in alone[:10])
        more = f"\n  and {len(alone) - 10} more" if len(alone) > 10 else ""
        raise DataError(f"{len(alone)} photos have no partner of the same name:\n{listed}{more}")
    return pairs


def infer_scale(pair: PhotoFile) -> int:
    """How many times larger the clean photo is than the degraded one. Raises `DataError` if by no whole number."""
    assert pair.degraded is not None
    height, width = photo_size(pair.clean)
    small_height, small_width = photo_size(pair.degraded)
    for scale in _SCALES:
        if (height // scale, width // scale) == (small_height, small_width):
            return scale
    raise DataError(
        f"{pair.degraded} is {small_width}x{small_height}, its clean partner {pair.clean} is {width}x{height}: expected "
        f"one of the scales {', '.join(map(str, _SCALES))}"
    )


def _existing(root: Path | None) -> Path:
    if root is None:
        raise DataError("no folder of photos is given: set data.source.root=FOLDER")
    if not root.is_dir():
        raise DataError(f"the folder {root.absolute()} does not exist: set data.source.root=FOLDER")
    return root


def _named(root: Path, paths: Sequence[Path]) -> list[PhotoFile]:
    """Names are paths below `root` without suffix; the suffix stays where two names would be equal."""
    stems = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    return [
        PhotoFile(stem if stems.count(stem) == 1 else path.relative_to(root).as_posix(), path)
        for path, stem in zip(paths, stems, strict=True)
    ]


def _share(
    photos: list[PhotoFile], split: Split, val_fraction: float, test_fraction: float
) -> list[PhotoFile]:
    """The photos of one split by a hash of their names: the lowest are `val`, the highest `test`.

    A split that is asked for never comes out empty while there are photos to fill it: the next one by hash joins.
    """

    def place(photo: PhotoFile) -> float:
        return (image_key(photo.name) + 2**63) / 2**64

    ordered = sorted(photos, key=place)
    if not ordered:
        return []
    first = max(sum(place(photo) < val_fraction for photo in ordered), 1)
    wanted = sum(place(photo) >= 1 - test_fraction for photo in ordered)
    last = len(ordered) - (max(wanted, 1) if test_fraction > 0 else 0)
    if not 0 < first < last:
        raise DataError(
            f"{len(photos)} photos are too few to split: give at least {3 if test_fraction else 2}"
        )
    chosen = {"val": ordered[:first], "train": ordered[first:last], "test": ordered[last:]}[split]
    return sorted(chosen, key=lambda photo: photo.name)
