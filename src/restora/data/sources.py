"""Sources of photos: each lists the files of a split, and reports before training what is missing.

`train` is for training, `val` chooses the checkpoint, `test` is only reported on. A source reads names and,
for pairs, file headers; it decodes nothing. DIV2K, which can be downloaded, is in `div2k.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from restora.data.halves import are_pairs, halves, pair_in_one_folder
from restora.data.packing import PhotoFile, Reader
from restora.data.pairs import PairBy, infer_scale, pair_up
from restora.keyed import image_key
from restora.photos.errors import DataError
from restora.photos.kinds import READABLE
from restora.photos.listing import list_photos, look_through
from restora.photos.names import readable, unique_names
from restora.registry import register

Split = Literal["train", "val", "test"]
Holds = Literal["clean", "degraded"]
SPLITS: tuple[Split, ...] = get_args(Split)
_MEANT: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, in lower case, that stand for a split."""


class Source(ABC):
    """A data set of clean photos, or of pairs."""

    name: str
    """Names the packed store."""
    paired: bool = False
    """Whether degraded photos come with the clean ones."""
    holds: Holds = "clean"
    """What photos without partners are: `clean`, or `degraded` where no clean ones exist."""
    partners_may_be_noisy: bool = False
    """Whether the user's own pairs may be two noisy versions of each photo."""
    reader = Reader()
    """How its files become pixels. One of clips may fold their frames into channels: (H,W,T·C)."""
    unique_names: bool = True
    """Whether no two photos of a split have the same name; those of several parts of a training may."""
    clips: bool = False
    """Whether the photos of a folder are the frames of a video, in the order in which they are listed."""
    channel_counts: tuple[int, ...] | None = (1, 3)
    """The numbers of channels that the reader can give; None for any number."""

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

    def left_out(self) -> dict[Path, str]:
        """Pictures and videos among the files that cannot be read at all, each with its reason."""
        return {}

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:  # noqa: ARG002
        """Downloads missing files where that is possible, then checks. `tracks` are parts of DIV2K."""
        if tracks:
            raise DataError(f"{' '.join(tracks)}: only DIV2K has tracks (data=div2k)")
        self.check()


def files_of(source: Source, split: Split) -> list[PhotoFile]:
    """The photos of a split. Raises `DataError` where a source of one's own does not keep its contract."""
    files, name = list(source.photos(split)), type(source).__name__
    if not isinstance(getattr(source, "name", None), str):
        raise DataError(f'data.source: {name} has no name: set it in the class, such as name = "mine"')
    seen: dict[str, Path] = {}
    for file in files:
        if not isinstance(file, PhotoFile):
            raise DataError(
                f"data.source: photos() of {name} gave a {type(file).__name__}, expected "
                "PhotoFile(name, path) of restora.data.packing"
            )
        if file.name in seen and source.unique_names:
            raise DataError(
                f"data.source: {name} gives {seen[file.name]} and {file.clean} one name, {file.name!r}: "
                "names are unique in a split, as figures and random numbers go by them"
            )
        seen[file.name] = file.clean
    return files


@register("source", "sample_photos")
class SamplePhotos(Source):
    """The natural colour photos that scikit-image ships: nothing to download, enough to see that it works."""

    name = "sample"

    def check(self) -> None:
        for split in SPLITS:
            for photo in self.photos(split):
                if not photo.clean.is_file():
                    raise DataError(f"{photo.clean} is missing: reinstall it with pip install scikit-image")

    def photos(self, split: Split) -> list[PhotoFile]:
        import skimage

        files = {
            "train": ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png"),
            "val": ("rocket.jpg",),
            "test": ("chelsea.png", "coffee.png"),
        }
        folder = Path(skimage.__file__).parent / "data"
        return [PhotoFile(Path(name).stem, folder / name) for name in files[split]]


@register("source", "folder")
class Folder(Source):
    """Any folder of photos, with sub-folders, in any mix of formats.

    With a sub-folder `train` the splits are the sub-folders `train`, `val` and, if there is one, `test`. Else
    `val_fraction` and `test_fraction` of the photos are held out by a hash of each name, so that adding
    photos later does not move others to another split. `holds` degraded: the photos are noisy, for training
    without clean ones.
    """

    has_halves = False
    """Whether folders `clean` and `degraded` in it are told apart."""

    def __init__(
        self,
        *,
        root: str | Path | None,
        holds: Holds = "clean",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        if holds not in get_args(Holds):
            raise ValueError(f"data.source.holds must be clean or degraded, got {holds!r}")
        self.holds = holds
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            raise ValueError(
                "data.source: val_fraction must be in (0, 1), test_fraction in [0, 1), their sum below "
                "1; got "
                f"{val_fraction} and {test_fraction}"
            )
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.name = "folder" if self.root is None else (self.root.resolve().name or "folder")

    def check(self) -> None:
        self._check_names()
        if not self.has_halves:
            self._check_halves()
        for split in ("train", "val"):
            if not self.photos(split):
                kinds = " ".join(sorted(suffix.lstrip(".") for suffix in READABLE))
                where = f"the sub-folder {split}/ of {self.root}" if self._has_splits() else str(self.root)
                fix = f"put photos into {split}/, or " if self._has_splits() else ""
                raise DataError(
                    f"no photos for {split} in {where}: {fix}set data.source.root=FOLDER (formats: {kinds})"
                )

    def photos(self, split: Split) -> list[PhotoFile]:
        if self._has_splits():
            return self.photos_in(self.existing_root() / split)
        root = self.existing_root()
        return share_out(self.photos_in(root), root, split, self.val_fraction, self.test_fraction)

    def left_out(self) -> dict[Path, str]:
        return look_through(self.existing_root()).left_out

    def photos_in(self, folder: Path) -> list[PhotoFile]:
        """The photos, or pairs, of one folder."""
        return named(folder, list_photos(folder))

    def _check_names(self) -> None:
        """Raises `DataError` for sub-folders that are meant as splits, but not called so."""
        root = self.existing_root()
        folders = [path.name for path in root.iterdir() if path.is_dir()]
        meant = {name: split for name in folders if (split := _MEANT.get(name.lower())) not in (None, name)}
        other = {name: split for name, split in meant.items() if split not in folders}
        are_splits = self._has_splits() or {"train", "val"} <= {*other.values(), *folders}
        if other and are_splits:
            listed = ", ".join(f"{name}/ to {split}/" for name, split in sorted(other.items()))
            raise DataError(
                f"the sub-folders of {root} for the splits are called train/, val/ and test/: rename {listed}"
            )

    def _check_halves(self) -> None:
        """Raises `DataError` for pairs: their degraded photos would be learnt as clean ones."""
        folder = self.existing_root() / "train" if self._has_splits() else self.existing_root()
        if (found := halves(folder)) is not None and are_pairs(*found):
            raise DataError(
                f"{folder} has sub-folders {found[0].name}/ and {found[1].name}/: set data=paired_folder, "
                "for unrelated photos data=unpaired_folder, or data.source.root to one of the two"
            )
        if self.holds == "clean" and (two := pair_in_one_folder(list_photos(folder))) is not None:
            raise DataError(
                f"{two[0].parent} has pairs, such as {two[0].name} and {two[1].name}, and one of each is "
                "degraded: put the halves into folders clean/ and degraded/, and set data=paired_folder "
                "data.source.pair_by=order"
            )

    def _has_splits(self) -> bool:
        return (self.existing_root() / "train").is_dir()

    def existing_root(self) -> Path:
        """The folder that was given. Raises `DataError` if none was, or if it does not exist."""
        if self.root is None:
            raise DataError("no folder of photos is given: set data.source.root=FOLDER")
        if self.root.is_file():
            raise DataError(
                f"{self.root.absolute()} is a file: set data.source.root={self.root.parent}, its folder, or "
                "another folder of photos"
            )
        if not self.root.is_dir():
            raise DataError(f"the folder {self.root.absolute()} does not exist: set data.source.root=FOLDER")
        return self.root


@register("source", "paired_folder")
class PairedFolder(Folder):
    """Degraded photos with their clean partners: sub-folders `clean` and `degraded`, matched by name.

    They lie in `root` itself, split by fractions, or in `root/train`, `root/val` and, if there is one,
    `root/test`. The sub-folders may have other usual names (`halves.py`): GT and LQ, HR and LR. A degraded
    name may end in `x4` or the like, or in `degraded_suffix` (`_LR_x4`); several degraded photos may share a
    clean one. `pair_by` order matches them in sorted order instead. `scale` null is the scale of most pairs;
    pairs of another scale are left out and named when packed.
    """

    paired = True
    has_halves = True
    partners_may_be_noisy = True

    def __init__(
        self,
        *,
        root: str | Path | None,
        scale: int | None = None,
        pair_by: PairBy = "name",
        degraded_suffix: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction, test_fraction=test_fraction)
        self._given_scale = scale
        self.pair_by, self.degraded_suffix = pair_by, degraded_suffix

    def check(self) -> None:
        super().check()
        self._check_order()
        assert self.scale  # raises DataError if it cannot be inferred

    def _check_order(self) -> None:
        """Raises `DataError` for splits inside the halves: other photos would be held out."""
        found = None if self._has_splits() else halves(self.existing_root())
        if found is None:
            return
        clean, degraded = found
        inside = {
            split for path in clean.iterdir() if path.is_dir() and (split := _MEANT.get(path.name.lower()))
        }
        if {"train", "val"} <= inside:
            raise DataError(
                f"{clean} has sub-folders for the splits, which come first: train/{clean.name}/, "
                f"train/{degraded.name}/, val/{clean.name}/, …"
            )

    @property
    def scale(self) -> int:
        return self._given_scale or self._inferred_scale

    @cached_property
    def _inferred_scale(self) -> int:
        pairs = self.photos("train")
        if not pairs:
            raise DataError(f"no pairs for train in {self.root}: set data.source.root=FOLDER")
        return infer_scale(pairs)

    def photos_in(self, folder: Path) -> list[PhotoFile]:
        if not folder.is_dir():
            return []
        if (found := halves(folder)) is None:
            missing = next(half for name in ("clean", "degraded") if not (half := folder / name).is_dir())
            raise DataError(
                f"the folder {missing} does not exist: pairs lie in clean/ and degraded/ (or GT/ and LQ/, "
                "HR/ and LR/, target/ and input/, sharp/ and blur/, high/ and low/)"
            )
        clean, degraded = (named(half, list_photos(half)) for half in found)
        return pair_up(clean, degraded, by=self.pair_by, suffix=self.degraded_suffix)


@register("source", "unpaired_folder")
class UnpairedFolder(Folder):
    """Degraded photos, and unrelated clean photos.

    Sub-folders `degraded` and `clean`, in `root` itself or in `root/train`, `root/val` and, if there is
    one, `root/test`.

    `holds` clean: the photos in `degraded` are clean as well, and the degradation is applied to them.
    """

    has_halves = True

    def __init__(
        self,
        *,
        root: str | Path | None,
        holds: Holds = "degraded",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        super().__init__(root=root, holds=holds, val_fraction=val_fraction, test_fraction=test_fraction)

    def check(self) -> None:
        super().check()
        self.clean_photos().check()

    def photos_in(self, folder: Path) -> list[PhotoFile]:
        if folder != self.root and not folder.is_dir():  # a split that is not there
            return []
        return named(folder / "degraded", list_photos(self._half(folder, "degraded")))

    def clean_photos(self) -> "Folder":
        """The clean photos, all of them for training."""
        root = self.existing_root()
        folder = self._half(root / "train" if self._has_splits() else root, "clean")
        return _Whole(root=folder, val_fraction=self.val_fraction, test_fraction=0.0)

    @staticmethod
    def _half(folder: Path, half: str) -> Path:
        if not (folder / half).is_dir():
            raise DataError(
                f"the folder {folder / half} does not exist: photos lie in degraded/ and, of others, clean/"
            )
        return folder / half


class _Whole(Folder):
    """A folder whose photos are all for training."""

    def photos(self, split: Split) -> list[PhotoFile]:
        return self.photos_in(self.existing_root()) if split == "train" else []

    def check(self) -> None:
        if not self.photos("train"):
            raise DataError(f"no photos in {self.root}: put clean ones there")


def named(root: Path, paths: Sequence[Path]) -> list[PhotoFile]:
    """The photos with unique names."""
    return [PhotoFile(name, path) for name, path in zip(unique_names(paths, root), paths, strict=True)]


def share_out(
    photos: Sequence[PhotoFile],
    root: Path,
    split: Split,
    val_fraction: float,
    test_fraction: float,
    *,
    what: str = "photos",
) -> list[PhotoFile]:
    """The photos of one split by a hash of the clean files' names: the lowest are `val`, the highest `test`.

    Pairs that share a clean photo stay together. Every requested split gets at least one photo, the next in
    the order of the hashes. Raises `DataError` if there are fewer photos than splits.
    """
    places = {photo.clean: _place(photo.clean.relative_to(root)) for photo in photos}
    ordered = sorted(places, key=lambda path: places[path])
    if not ordered:
        return []
    least = 3 if test_fraction else 2
    if len(ordered) < least:
        raise DataError(
            f"at least {least} {what} are needed, one for each split, and {root} holds {len(ordered)}: add "
            f"{what}, or make folders train/ and val/ in it (one photo is restored without training, by a "
            "model that comes with restora or a method:NAME: restora restore --help)"
        )
    first = max(sum(places[path] < val_fraction for path in ordered), 1)
    first = min(first, len(ordered) - least + 1)  # with few photos, the hashes may put all into one split
    held_out = max(sum(places[path] >= 1 - test_fraction for path in ordered), 1) if test_fraction else 0
    last = max(len(ordered) - held_out, first + 1)
    chosen = set({"val": ordered[:first], "train": ordered[first:last], "test": ordered[last:]}[split])
    return [photo for photo in photos if photo.clean in chosen]


def _place(path: Path) -> float:
    """A uniform number in [0,1), a hash of the file's path without extension."""
    return (image_key(readable(path.with_suffix("").as_posix())) + 2**63) / 2**64
