"""Published pairs of real photos, in the layouts of their archives: SIDD (noise) and GoPro (motion blur).

Neither can be downloaded without a form or a click; a folder of the unpacked archive is what is named. Their
degraded photos come with them: `degradation=identity`, or a part of a mixture.
"""

from collections.abc import Sequence
from pathlib import Path

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

    Abdelhamed, Lin and Brown, CVPR 2018. It has no test part: its benchmark is scored on a server.
    """

    name = "sidd"
    layout = "[SIDD_Medium_Srgb/]Data/<instance>/<number>_NOISY_SRGB_<shot>.PNG beside …_GT_SRGB_<shot>.PNG"

    def photos(self, split: Split) -> list[PhotoFile]:
        root = self.existing_root()
        if split == "test":
            return []
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
