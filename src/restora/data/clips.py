"""Clips of T frames, of which the middle one is restored: photos that move, or frames of real videos.

A frame of a real video is packed like a photo. Its clip is a window of T frames with it in the middle, which
is mirrored at the ends of the video. The noise of a frame that is validated or reported is a function of the
frame's name, and so the same in every window.

Legend: B samples, T frames, C channels of a frame, h and w sides of a crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from restora.data.motion import CameraMotion
from restora.data.store import Entry
from restora.degradations.frames import frame_keys
from restora.keyed import KeyedGenerator, image_key
from restora.photos.errors import DataError
from restora.photos.windows import mirrored


@dataclass(frozen=True)
class View:
    """Makes clips of a batch of crops or photos on the device.

    `motion` moves photos, which have a `margin` on each side; None is for frames of videos. `keys` int64
    (B,T) are those of the frames, None for keys made from those of the clips.
    """

    frames: int
    motion: CameraMotion | None = None
    margin: int = 0
    keys: Tensor | None = None

    def __call__(self, photos: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Photos float32 (B,C,h+2m,w+2m), or frames (B,T,C,h,w), and keys (B,) -> (B,T,C,h,w) and (B,T)."""
        if self.motion is not None:
            params = self.motion.sample(self.frames, KeyedGenerator(keys).fork("motion"))
            photos = self.motion.frames(photos, params, margin=self.margin)
        return photos, frame_keys(keys, self.frames) if self.keys is None else self.keys


def check_frames(frames: int) -> None:
    """Raises ValueError for a number of frames that has no middle."""
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1 or frames % 2 == 0:
        raise ValueError(
            f"data.frames must be an odd number, such as 5 with the restored one in the middle, got {frames}"
        )


def windows(entries: Sequence[Entry], frames: int) -> list[list[int]]:
    """The numbers of the frames in the window of each frame; a folder holds a video, in the order of entries.

    Raises `DataError` for a video whose frames differ in size.
    """
    videos: dict[Path, list[int]] = {}
    for number, entry in enumerate(entries):
        videos.setdefault(Path(entry.path).parent, []).append(number)
    found: list[list[int]] = [[] for _ in entries]
    for folder, numbers in videos.items():
        sizes = {(entries[number].clean.height, entries[number].clean.width) for number in numbers}
        if len(sizes) > 1:
            listed = " and ".join(f"{width}x{height}" for height, width in sorted(sizes)[:2])
            raise DataError(
                f"the frames in {folder} differ in size ({listed}): a folder holds the frames of one video"
            )
        for place, number in enumerate(numbers):
            around = range(place - frames // 2, place + frames // 2 + 1)
            found[number] = [numbers[mirrored(index, len(numbers))] for index in around]
    return found


def name_keys(entries: Sequence[Entry], numbers: Sequence[Sequence[int]]) -> Tensor:
    """int64 (B,T): the keys of frames by their names."""
    return torch.tensor([[image_key(entries[number].name) for number in row] for row in numbers])
