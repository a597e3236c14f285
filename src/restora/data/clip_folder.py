"""Real videos as folders of frames: each folder that holds pictures is one video, or a shot of one."""

import re
from pathlib import Path

from restora.data.packing import PhotoFile
from restora.data.sources import Folder, Split, named, share_out
from restora.photos.errors import DataError
from restora.photos.listing import list_photos
from restora.registry import register


@register("source", "clip_folder")
class ClipFolder(Folder):
    """Clean frames of videos, a folder each, in the order of their numbers: `clip/9.png`, `clip/10.png`.

    Folders `train`, `val` and, if there is one, `test` hold those of the splits. Without them
    `val_fraction` and `test_fraction` of the videos are held out, by a hash of their names: frames of one
    video are never in two splits.
    """

    clips = True

    def __init__(
        self, *, root: str | Path | None, val_fraction: float = 0.1, test_fraction: float = 0.1
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction, test_fraction=test_fraction)

    def check(self) -> None:
        if self.root is None:
            raise DataError(
                "no folder of videos is given: set data.source.root=FOLDER, with a folder of frames for each"
            )
        super().check()

    def photos(self, split: Split) -> list[PhotoFile]:
        if self._has_splits():
            return self.photos_in(self.existing_root() / split)
        root = self.existing_root()
        frames = self.photos_in(root)
        if any(frame.clean.parent == root for frame in frames):
            raise DataError(
                f"{root} holds frames: put those of each video into a folder of its own, {root / 'VIDEO'}"
            )
        videos = [PhotoFile(path.name, path) for path in dict.fromkeys(one.clean.parent for one in frames)]
        chosen = {
            video.clean
            for video in share_out(
                videos, root, split, self.val_fraction, self.test_fraction, what="folders of frames"
            )
        }
        return [frame for frame in frames if frame.clean.parent in chosen]

    def photos_in(self, folder: Path) -> list[PhotoFile]:
        """The frames below a folder, video by video, in the order of time."""
        return named(folder, sorted(list_photos(folder), key=_by_number))


def _by_number(path: Path) -> tuple[Path, list[tuple[bool, int, str]]]:
    """Sorts by folder, then by name with the numbers in it as numbers."""
    words = re.split(r"(\d+)", path.name)
    return path.parent, [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]
