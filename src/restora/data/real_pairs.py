"""Published pairs of real photos, in the layouts of their archives: SIDD (noise), GoPro, RealBlur (shake).

None can be downloaded without a form or a click; a folder of the unpacked archive is what is named. Their
degraded photos come with them: `degradation=identity`, or a part of a mixture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from restora.data.packing import PhotoFile
from restora.data.sources import Source, Split
from restora.keyed import image_key
from restora.photos.errors import DataError
from restora.photos.kinds import READABLE
from restora.registry import register


class RealPairs(Source):
    """Pairs of one archive.

    `val_fraction` of the groups (scenes, sequences) of the training part choose the checkpoint: photos of
    one group are never in both.
    """

    paired = True
    layout: str
    """What the folder has to hold, for messages."""

    def __init__(self, *, root: str | Path | None, val_fraction: float = 0.1) -> None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.source.val_fraction is in (0, 1), got {val_fraction}")
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction = val_fraction

    def check(self) -> None:
        for split in ("train", "val"):
            if not self.photos(split):
                raise DataError(f"no pairs for {split} in {self.root}, expected {self.layout}")

    def existing_root(self) -> Path:
        """The folder that was given. Raises `DataError`."""
        if self.root is None or not self.root.is_dir():
            named = "is given" if self.root is None else f"is at {self.root.absolute()}"
            where = "data.source.root=FOLDER (of a mixture data.parts.NAME.source.root)"
            raise DataError(f"no folder of {self.name} {named}: set {where}, which holds {self.layout}")
        return self.root

    def _share(self, groups: Sequence[str], split: Split) -> set[str]:
        """The groups of a split, by a hash of their names; validation has one at least."""
        ordered = sorted(set(groups), key=image_key)
        count = max(round(self.val_fraction * len(ordered)), 1)
        return set(ordered[:count] if split == "val" else ordered[count:])


@register("source", "sidd")
class SIDD(RealPairs):
    """SIDD-Medium, sRGB: 320 scene instances of smartphone noise, two pairs each.

    Abdelhamed, Lin and Brown, CVPR 2018. Its own benchmark is scored on a server; papers report the 1,280
    validation blocks of 256x256, which are the test part here where `ValidationNoisyBlocksSrgb.mat` and
    `ValidationGtBlocksSrgb.mat` lie in the folder too: `restora prepare data=sidd` writes them as pictures.
    """

    name = "sidd"
    layout = "[SIDD_Medium_Srgb/]Data/<instance>/<number>_NOISY_SRGB_<shot>.PNG beside …_GT_SRGB_<shot>.PNG"

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        if split == "test":
            return self._blocks(root / _BLOCKS)
        noisy = sorted(path for path in root.rglob("*_NOISY_SRGB_*") if path.suffix.lower() in READABLE)
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

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        """Writes the validation blocks as pictures where their files lie in the folder, then checks."""
        root = self.existing_root()
        for kind, half in (("Gt", "clean"), ("Noisy", "noisy")):
            file = root / f"Validation{kind}BlocksSrgb.mat"
            if file.is_file() and not (root / _BLOCKS / half / ".whole").exists():
                _write_blocks(file, root / _BLOCKS / half)
        super().obtain(tracks=tracks, keep_archives=keep_archives)


_BLOCKS = "validation_blocks"


def _write_blocks(file: Path, folder: Path) -> None:
    """A .mat file of blocks (images, blocks, H, W, 3), 8 bits, as `0001_01.png` to `0040_32.png`."""
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
    folder.mkdir(parents=True, exist_ok=True)
    for image, blocks in enumerate(values, 1):
        for number, block in enumerate(blocks, 1):
            Image.fromarray(block).save(folder / f"{image:04}_{number:02}.png")
    (folder / ".whole").touch()


@register("source", "gopro")
class GoPro(RealPairs):
    """GoPro: 2,103 pairs to train on and 1,111 to test, blurred by averaging frames.

    They are of 240 a second (Nah, Kim and Lee, CVPR 2017).
    """

    name = "gopro"
    layout = "train/<sequence>/blur/ beside train/<sequence>/sharp/, and test/ alike"

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
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
class RealBlur(RealPairs):
    """RealBlur: 3,758 pairs of real camera shake to train on and 980 to test, aligned by the authors.

    Rim, Lee, Won and Cho, ECCV 2020. `kind` J are the camera's JPEG photos, R those made from its raw files.
    """

    name = "realblur"
    layout = "RealBlur_<kind>_train_list.txt, RealBlur_<kind>_test_list.txt and the photos that they name"

    def __init__(
        self, *, root: str | Path | None, kind: Literal["J", "R"] = "J", val_fraction: float = 0.1
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction)
        if kind not in ("J", "R"):
            raise ValueError(f"data.source.kind is J (JPEG) or R (from raw), got {kind!r}")
        self.kind = kind

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        part = "test" if split == "test" else "train"
        file = root / f"RealBlur_{self.kind}_{part}_list.txt"
        if not file.is_file():
            raise DataError(f"{file} does not exist, expected {self.layout}")
        pairs = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
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
