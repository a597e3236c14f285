"""Published pairs of real photos, in the layouts of their archives: SIDD (noise), GoPro, RealBlur (shake).

SIDD and GoPro are downloaded from their authors' addresses. RealBlur has to be downloaded by hand and is
given as the folder of its unpacked archive, as the others may be. The degraded photos are part of the data:
use `degradation=identity`, or a part of a mixture.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from restora.data.archives import Archive
from restora.data.download import fetch, obtain
from restora.data.locking import sole_process
from restora.data.packing import PhotoFile
from restora.data.sources import Source, Split
from restora.keyed import image_key
from restora.photos.errors import DataError
from restora.photos.kinds import READABLE
from restora.photos.listing import list_photos
from restora.registry import register


class RealPhotos(Source):
    """Photos of one archive, which are pairs unless a subclass sets `paired` otherwise.

    `val_fraction` of the groups (scenes, sequences) of the training part choose the checkpoint: photos of
    one group are never in both.
    """

    paired = True
    layout: str
    """The expected contents of the folder, for messages."""
    remedy = ""
    """How to get these contents, for messages."""

    def __init__(self, *, root: str | Path | None, val_fraction: float = 0.1) -> None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.source.val_fraction must be in (0, 1), got {val_fraction}")
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction = val_fraction

    def check(self) -> None:
        for split in ("train", "val"):
            if not self.photos(split):
                raise DataError(
                    f"no photos for {split} in {self.root}, expected {self.layout}{self.remedy}: set "
                    "data.source.root=FOLDER"
                )

    def existing_root(self) -> Path:
        """The folder that was given. Raises `DataError`."""
        if self.root is None or not self.root.is_dir():
            named = "is given" if self.root is None else f"is at {self.root.absolute()}"
            raise DataError(
                f"no folder of {self.name} {named}: set data.source.root=FOLDER, which holds "
                f"{self.layout}{self.remedy}"
            )
        return self.root

    def _share(self, groups: Sequence[str], split: Split) -> set[str]:
        """The groups of a split, by a hash of their names; validation has one at least."""
        ordered = sorted(set(groups), key=image_key)
        count = max(round(self.val_fraction * len(ordered)), 1)
        return set(ordered[:count] if split == "val" else ordered[count:])


class Downloadable(RealPhotos):
    """An archive with a public address.

    `url` null is its authors' address. `verify` compares the archive with the published size and checksum.
    """

    archive: Archive
    address: str
    """Where its authors publish it."""

    def __init__(
        self,
        *,
        root: str | Path | None,
        url: str | None = None,
        verify: bool = True,
        val_fraction: float = 0.1,
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction)
        self.url, self.verify = (url or self.address).rstrip("/"), verify

    @property
    def remedy(self) -> str:  # type: ignore[override]
        return f" (or run `restora prepare data={self.name}`, which downloads it)"

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        """Downloads the archive unless the photos are in the folder already, then checks."""
        if self.root is not None and self._lacks(self.root):  # whole data may lie where nothing is written
            with sole_process(self.root / ".download.lock", doing=f"downloading into {self.root}"):
                self._download(self.root, keep_archives=keep_archives)
        super().obtain(tracks=tracks, keep_archives=keep_archives)

    def _lacks(self, root: Path) -> bool:
        """Whether there is anything to download or to make."""
        return not root.is_dir() or not self.photos("train")

    def _download(self, root: Path, *, keep_archives: bool) -> None:
        if self.photos("train"):
            return
        archive = self.archive if self.verify else replace(self.archive, size=None, sha256=None, md5=None)
        obtain(archive, url=f"{self.url}/{archive.name}", root=root, keep=keep_archives)


@register("source", "sidd")
class SIDD(Downloadable):
    """SIDD-Medium, sRGB: 160 scene instances of smartphone noise, two pairs each.

    Abdelhamed, Lin and Brown, CVPR 2018. Its own benchmark is scored on a server; papers report the 1,280
    validation blocks of 256x256, which are the test part here: `restora prepare data=sidd` writes the blocks
    of `ValidationNoisyBlocksSrgb.mat` and `ValidationGtBlocksSrgb.mat` in the folder as PNG files.
    """

    name = "sidd"
    layout = "[SIDD_Medium_Srgb/]Data/<instance>/<number>_NOISY_SRGB_<shot>.PNG beside …_GT_SRGB_<shot>.PNG"
    address = "http://130.63.97.225/share"
    archive = Archive(
        "SIDD_Medium_Srgb.zip",
        "SIDD_Medium_Srgb",
        size=13_234_744_070,
        md5="f95b4bc9ec1dd3fe4ebd61aeacad3991",
        levels=3,
    )

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        if split == "test":
            return self._blocks(root / _BLOCKS)
        noisy = sorted(path for path in list_photos(root) if "_NOISY_SRGB_" in path.name)
        # an instance is number_scene_camera_iso_…: one scene under several cameras stays together
        scenes = {path: path.parent.name.partition("_")[2].partition("_")[0] for path in noisy}
        chosen = self._share(list(scenes.values()), split)
        return [
            PhotoFile(
                f"{path.parent.name}_{path.stem.rpartition('_')[2]}",
                path.with_name(path.name.replace("_NOISY_", "_GT_")),
                path,
            )
            for path in noisy
            if scenes[path] in chosen
        ]

    @staticmethod
    def _blocks(folder: Path) -> list[PhotoFile]:
        noisy = sorted((folder / "noisy").glob("*.png"))
        return [PhotoFile(path.stem, folder / "clean" / path.name, path) for path in noisy]

    def _lacks(self, root: Path) -> bool:
        unwritten = (
            _blocks_file(root, kind).is_file() and not _is_written(root / _BLOCKS / half)
            for kind, half, _ in _BLOCKS_FILES
        )
        return super()._lacks(root) or any(unwritten)

    def _download(self, root: Path, *, keep_archives: bool) -> None:
        """Downloads the validation blocks and writes them as PNG files, then downloads the photos."""
        fresh = not self.photos("train")
        for kind, half, size in _BLOCKS_FILES:
            file, folder = _blocks_file(root, kind), root / _BLOCKS / half
            if _is_written(folder):
                continue
            if fresh and not file.is_file():
                known = Archive(file.name, "", size=size if self.verify else None)
                fetch(known, url=f"{self.url}/SIDD_Blocks/{file.name}", target=file)
            if file.is_file():
                _write_blocks(file, folder)
        super()._download(root, keep_archives=keep_archives)


_BLOCKS = "validation_blocks"
_BLOCKS_FILES = (("Gt", "clean", 232_055_617), ("Noisy", "noisy", 229_724_517))
"""The word in the name of each file of blocks, the folder of its pictures, its bytes."""


def _blocks_file(root: Path, kind: str) -> Path:
    return root / f"Validation{kind}BlocksSrgb.mat"


def _is_written(folder: Path) -> bool:
    return (folder / ".whole").exists()


def _write_blocks(file: Path, folder: Path) -> None:
    """Writes the 8-bit blocks (images, blocks, H, W, 3) of a .mat file, `0001_01.png` to `0040_32.png`."""
    import numpy as np
    from PIL import Image
    from scipy.io import loadmat

    try:
        values = loadmat(file)[file.stem]
    except (KeyError, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{file} does not hold the array {file.stem} that it is named after ({error}): fetch it again"
        ) from error
    if values.ndim != 5 or values.shape[-1] != 3 or values.dtype != np.uint8:
        raise DataError(
            f"{file}: expected 8-bit blocks (images, blocks, H, W, 3), got {values.dtype} {values.shape}"
        )
    # drawn up beside its place: a part of the blocks would be taken for the whole test set
    draft = folder if folder.exists() else folder.with_name(f".{folder.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    for image, blocks in enumerate(values, 1):
        for number, block in enumerate(blocks, 1):
            Image.fromarray(block).save(draft / f"{image:04}_{number:02}.png")
    (draft / ".whole").touch()
    draft.rename(folder)


@register("source", "gopro")
class GoPro(Downloadable):
    """GoPro: 2,103 training and 1,111 test pairs, blurred by averaging frames of 240 fps video.

    Nah, Kim and Lee, CVPR 2017.
    """

    name = "gopro"
    layout = "[GOPRO_Large/]train/<sequence>/blur/ beside train/<sequence>/sharp/, and test/ alike"
    address = "https://huggingface.co/datasets/snah/GOPRO_Large/resolve/main"
    archive = Archive(
        "GOPRO_Large.zip",
        "GOPRO_Large",
        sha256="24532c036712515cf33803704421311c91f6a080e76049d7e5e7fd22389f128e",
        levels=4,
    )

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        root = root if (root / "train").is_dir() else root / self.archive.folder
        part = root / ("test" if split == "test" else "train")
        folders = sorted(path for path in part.glob("*") if (path / "blur").is_dir())
        if split != "test":
            chosen = self._share([path.name for path in folders], split)
            folders = [path for path in folders if path.name in chosen]
        pairs = []
        for folder in folders:
            for path in sorted((folder / "blur").iterdir()):
                if path.suffix.lower() in READABLE:
                    pairs.append(PhotoFile(f"{folder.name}_{path.stem}", folder / "sharp" / path.name, path))
        return pairs


@register("source", "realblur")
class RealBlur(RealPhotos):
    """RealBlur: 3,758 training and 980 test pairs of real camera shake, aligned by the authors.

    Rim, Lee, Won and Cho, ECCV 2020. `kind` J are the camera's JPEG photos, R those made from its raw files.
    """

    name = "realblur"
    layout = "[RealBlur/]RealBlur_<kind>_train_list.txt and …_test_list.txt, and the photos that they name"

    def __init__(
        self, *, root: str | Path | None, kind: Literal["J", "R"] = "J", val_fraction: float = 0.1
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction)
        if kind not in ("J", "R"):
            raise ValueError(f"data.source.kind must be J (JPEG) or R (from raw), got {kind!r}")
        self.kind = kind

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        part = "test" if split == "test" else "train"
        name = f"RealBlur_{self.kind}_{part}_list.txt"
        root = root if (root / name).is_file() else root / "RealBlur"
        file = root / name
        if not file.is_file():
            raise DataError(
                f"{name} is not in {self.root}, expected {self.layout}: set data.source.root=FOLDER"
            )
        pairs = []
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            clean, _, degraded = (word.strip() for word in line.strip().partition(" "))
            scene = Path(degraded).parent.parent.name
            if Path(clean).parent.name != "gt" or Path(degraded).parent.name != "blur" or ".." in line:
                raise DataError(f"{file}, line {number}: expected …/gt/NAME …/blur/NAME, got {line.strip()}")
            pairs.append((scene, PhotoFile(f"{scene}_{Path(degraded).stem}", root / clean, root / degraded)))
        if split == "test":
            return [pair for _, pair in pairs]
        chosen = self._share([scene for scene, _ in pairs], split)
        return [pair for scene, pair in pairs if scene in chosen]
