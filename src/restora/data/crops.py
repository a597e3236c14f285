"""Crops and whole photos cut from a packed store into ready batches of uint8.

A batch is written into one block of memory, row by row from the mapped file: no list of samples, no
collating (which costs four times as much as the cutting). Leaves: dicts with `clean` uint8 (B,C,h,w), whose
memory is channels-last because that is how photos lie in the store; `degraded` likewise for paired data;
`key` int64 (B,); `names`. Frames of videos come in windows, `clean` (B,T,C,h,w) with the named one in the
middle.

Legend: B samples, T frames, C channels, h and w sides of a crop, s scale.
"""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from restora.data.clips import name_keys
from restora.data.schedule import Crop, CropSchedule
from restora.data.store import Entry, PhotoStore
from restora.keyed import image_key, sample_key
from restora.photos.reading import Pixels

Geometry = Literal["d4", "hflip", "none"]
_PLACE_STREAM = 0x71ACE
_REDUCTION_STREAM = 0x2ED0CE
_MASK = (1 << 64) - 1
_TRANSPOSED_BY_OPENCV = (1, 2, 3, 4)
"""Numbers of channels that `cv2.transpose` takes; of larger numbers it takes only some."""
_MEMBERS = {"d4": 8, "hflip": 2, "none": 1}


class PhotoBatch(TypedDict):
    """A batch from a loader, on the CPU."""

    clean: Tensor
    degraded: NotRequired[Tensor]
    key: Tensor
    names: list[str]
    margin: NotRequired[int]
    """Pixels on each side that are cut for moving photos."""
    frame_keys: NotRequired[Tensor]
    """int64 (B,T), where each frame of a clip has its own."""


class CropBatches(Dataset[PhotoBatch]):
    """Training batch number i of this process, cut from a store.

    `photos` are the store's photos that are large enough. A crop is cut as many times larger as one of the
    `reductions` says, drawn from those that the photo has room for, and reduced by averaging; not for paired
    data. `transforms` are albumentations transforms of one crop, seeded per sample; they may change its
    pixels, not its size. Crops have a `margin` on each side. `windows` are the frames around each photo of
    the store, which are cut alike.
    """

    def __init__(
        self,
        *,
        store: PhotoStore,
        photos: Sequence[int],
        schedule: CropSchedule,
        paired: bool,
        scale: int,
        geometry: Geometry,
        transforms: Sequence[Any],
        reductions: Sequence[int] = (1,),
        margin: int = 0,
        windows: Sequence[Sequence[int]] | None = None,
    ) -> None:
        assert schedule.photos == len(photos)
        self.margin, self.windows = margin, windows
        assert not paired or tuple(reductions) == (1,)
        self.reductions = tuple(reductions)
        self.store, self.photos, self.schedule = store, list(photos), schedule
        self.paired, self.scale, self.geometry = paired, scale, geometry
        self.transform = SeededTransform(transforms) if transforms else None

    def __len__(self) -> int:
        raise TypeError("training batches have no end; the sampler counts those of an epoch")

    def __getitem__(self, batch: int) -> PhotoBatch:
        return self.cut(self.schedule.crops(batch), self.schedule.stage(batch).patch_size)

    def cut(self, crops: Sequence[Crop], size: int) -> PhotoBatch:
        """A batch of these crops, of `size` pixels a side."""
        channels, scale = self.store.channels, self.scale
        side = size + 2 * self.margin
        frames = 1 if self.windows is None else len(self.windows[0])
        clean = _block(len(crops) * frames, side, side, channels)  # (B·T,h,w,C)
        degraded = _block(len(crops), size // scale, size // scale, channels) if self.paired else None
        names = []
        for row, crop in enumerate(crops):
            photo = self.photos[crop.photo]
            partner = None if degraded is None else degraded.numpy()[row]
            window = (photo,) if self.windows is None else self.windows[photo]
            for place, frame in enumerate(window, start=row * frames):
                self._cut(frame, crop.key, clean.numpy()[place], partner)
            names.append(self.store.entries[photo].name)
        keys = torch.tensor([crop.key for crop in crops], dtype=torch.int64)
        made: PhotoBatch = {"clean": clean.permute(0, 3, 1, 2), "key": keys, "names": names}
        if degraded is not None:
            made["degraded"] = degraded.permute(0, 3, 1, 2)
        if self.windows is not None:
            made["clean"] = made["clean"].unflatten(0, (-1, frames))  # (B,T,C,h,w)
        if self.margin:
            made["margin"] = self.margin
        return made

    def described(self) -> dict[str, Any]:
        """The plain values that determine the stream of crops."""
        return {
            "seed": self.schedule.seed,
            "photos": self.schedule.photos,
            "store": self.store.folder.name,
            "stages": [vars(stage) for stage in self.schedule.stages],
            "geometry": self.geometry,
            "margin": self.margin,
            "frames": 1 if self.windows is None else len(self.windows[0]),
            "reductions": list(self.reductions),
        }

    def _cut(self, photo: int, key: int, clean: Pixels, degraded: Pixels | None) -> None:
        """Fills `clean` (h,w,C) and `degraded` (h/s,w/s,C).

        Of the 64 random bits, 3 choose the symmetry of the crop, 30 its row and 30 its column.
        """
        bits = sample_key(_PLACE_STREAM, key) & _MASK
        height, width = usable_size(self.store.entries[photo], self.scale)
        # a corner lies on a pixel of the degraded partner: a multiple of the scale
        step = self.scale if degraded is not None else 1
        reduction = self._reduction(key, min(height, width) // clean.shape[0])
        size = clean.shape[0] * reduction
        # 30 bits times n positions, shifted down by 30: from 0 to n - 1, uniform up to n / 2^30
        top = ((bits >> 3 & 0x3FFFFFFF) * ((height - size) // step + 1) >> 30) * step
        left = ((bits >> 33 & 0x3FFFFFFF) * ((width - size) // step + 1) >> 30) * step
        # 1, 2 and 8 divide 8, so the other three bits choose each member equally often
        member = (bits & 7) % _MEMBERS[self.geometry]
        part = self.store.clean(photo)[top : top + size, left : left + size]
        turn(part if reduction == 1 else reduced(part, reduction), member, clean)
        if degraded is not None:
            # the same part of the partner, at 1/s of size and position
            small, top, left = degraded.shape[0], top // step, left // step
            turn(self.store.degraded(photo)[top : top + small, left : left + small], member, degraded)
        # after the turn, so that a transform sees the crop as the network will
        if self.transform is not None:
            self.transform(bits, clean, degraded)

    def _reduction(self, key: int, largest: int) -> int:
        possible = [reduction for reduction in self.reductions if reduction <= largest]
        if len(possible) == 1:
            return possible[0]
        return possible[(sample_key(_REDUCTION_STREAM, key) & _MASK) % len(possible)]


class WholePhotos(Dataset[PhotoBatch]):
    """Whole photos of a store, or their centre crops if `crop` is set.

    Sides are cut to multiples of `scale`. Photos of equal size share a batch of at most `pixels` clean
    pixels; a larger photo comes alone. Batches are in the order of their first photos. Keys are made from the
    photos' names. Photos that are not `counted` come without names. `windows` are the frames around each
    photo of the store, and come with keys of their own.
    """

    def __init__(
        self,
        *,
        store: PhotoStore,
        photos: Sequence[int],
        paired: bool,
        scale: int,
        crop: int | None,
        counted: bool,
        pixels: int = 0,
        windows: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.windows = windows
        self.store, self.paired, self.scale, self.crop, self.counted = store, paired, scale, crop, counted
        self.batches = self._of_equal_size(photos, pixels)

    def _of_equal_size(self, photos: Sequence[int], pixels: int) -> list[list[int]]:
        batches: list[list[int]] = []
        unfilled: dict[tuple[int, int], list[int]] = {}
        for photo in photos:
            rows, columns = self._part(photo)
            size = height, width = rows.stop - rows.start, columns.stop - columns.start
            if size not in unfilled or (len(unfilled[size]) + 1) * height * width > pixels:
                unfilled[size] = []
                batches.append(unfilled[size])
            unfilled[size].append(photo)
        return batches

    def _part(self, photo: int) -> tuple[slice, slice]:
        """Rows and columns of the clean photo that are evaluated."""
        sides, scale = usable_size(self.store.entries[photo], self.scale), self.scale
        wanted = max(self.crop or max(sides), scale)
        kept = [min(side, wanted) // scale * scale for side in sides]
        # the centre, moved up and left to a multiple of the scale
        starts = [(side - part) // 2 // scale * scale for side, part in zip(sides, kept, strict=True)]
        rows, columns = (slice(start, start + part) for start, part in zip(starts, kept, strict=True))
        return rows, columns

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> PhotoBatch:
        if index >= len(self.batches):
            raise IndexError(index)
        photos = self.batches[index]
        names = [self.store.entries[photo].name for photo in photos]
        parts = [self._part(photo) for photo in photos]
        made: PhotoBatch = {
            "clean": self._clean(photos, parts),
            "key": torch.tensor([image_key(name) for name in names]),
            "names": names if self.counted else [],
        }
        if self.paired:
            small = [[slice(s.start // self.scale, s.stop // self.scale) for s in part] for part in parts]
            degraded = [self.store.degraded(p)[*part] for p, part in zip(photos, small, strict=True)]
            made["degraded"] = _stack(degraded)
        if self.windows is not None:
            made["frame_keys"] = name_keys(self.store.entries, [self.windows[photo] for photo in photos])
        return made

    def _clean(self, photos: Sequence[int], parts: Sequence[tuple[slice, slice]]) -> Tensor:
        """(B,C,h,w), or the windows (B,T,C,h,w)."""
        if self.windows is None:
            return _stack([self.store.clean(p)[part] for p, part in zip(photos, parts, strict=True)])
        clips = [
            _stack([self.store.clean(frame)[part] for frame in self.windows[photo]])
            for photo, part in zip(photos, parts, strict=True)
        ]
        return torch.stack(clips)


def usable_size(entry: Entry, scale: int) -> tuple[int, int]:
    """(H, W) of the clean photo that a degraded partner covers, or of all of it, in multiples of `scale`."""
    height, width = entry.clean.height // scale, entry.clean.width // scale
    if entry.degraded is not None:
        height, width = min(height, entry.degraded.height), min(width, entry.degraded.width)
    return height * scale, width * scale


def check_reductions(reductions: Sequence[int], *, degraded: str | None) -> None:
    """Raises ValueError for invalid reductions; `degraded` names a source whose photos come degraded."""
    whole = all(type(number) is int and number >= 1 for number in reductions)
    if not reductions or not whole or len(set(reductions)) < len(reductions):
        raise ValueError(
            "data.reductions must be different whole numbers from 1 up, such as [1, 2, 3], got "
            f"{[*reductions]}"
        )
    if tuple(reductions) != (1,) and degraded is not None:
        raise ValueError(
            f"data.reductions={[*reductions]} would also reduce the defects of {degraded}, "
            "whose photos come degraded: set data.reductions=[1]"
        )


def reduced(part: Pixels, reduction: int) -> Pixels:
    """(rh,rh,C) -> (h,h,C): means of squares of r = `reduction` pixels a side, rounded."""
    side = part.shape[0] // reduction
    means = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return means.reshape(side, side, part.shape[2])  # OpenCV drops a single channel


def turn(source: Pixels, member: int, out: Pixels) -> None:
    """One of the eight symmetries of the square, (h,h,C) -> `out` of the same shape.

    `member` is a sum: 1 flips horizontally, 2 flips vertically, 4 transposes after that. The crop is first
    copied, row by row, and then transformed in the cache: 56 µs for 256x256x3 out of a large photo, 120 when
    OpenCV reads straight from the memory-mapped file, 450 through numpy's strides.
    """
    upright = out if member < 4 else np.empty_like(out)
    # whole rows, the last one first for a vertical flip
    np.copyto(upright, source[::-1] if member & 2 else source)
    if member & 1:
        # 1 is OpenCV's code of a horizontal flip
        cv2.flip(upright, 1, dst=upright)
    if member & 4:
        if out.shape[2] in _TRANSPOSED_BY_OPENCV:
            cv2.transpose(upright, dst=out)
        else:
            np.copyto(out, upright.transpose(1, 0, 2))


def _block(batch: int, height: int, width: int, channels: int) -> Tensor:
    """Memory for a batch (B,h,w,C); in a worker it is shared, so that handing it over copies nothing."""
    if get_worker_info() is None:
        return torch.empty(batch, height, width, channels, dtype=torch.uint8)
    storage: Any = torch.UntypedStorage._new_shared(batch * height * width * channels)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(batch, height, width, channels)


def _stack(photos: Sequence[Pixels]) -> Tensor:
    """(h,w,C) each -> (B,C,h,w), copied out of the mapped file."""
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)


class SeededTransform:
    """albumentations transforms of a crop in place, determined by the crop and 64 bits."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        import albumentations

        self.composed = albumentations.Compose(
            list(transforms), additional_targets={"degraded": "image"}, is_check_shapes=False
        )

    def __call__(self, bits: int, clean: Pixels, degraded: Pixels | None) -> None:
        """Changes `clean` and its degraded partner alike. Raises ValueError if a size changes."""
        self.composed.set_random_seed(bits & 0xFFFFFFFF)
        crops = {"image": clean} if degraded is None else {"image": clean, "degraded": degraded}
        made = self.composed(**crops)
        for name, crop in crops.items():
            if made[name].shape != crop.shape or made[name].dtype != np.uint8:
                raise ValueError(
                    f"data.transforms must keep a crop uint8 {crop.shape}, got {made[name].dtype} "
                    f"{made[name].shape}"
                )
            np.copyto(crop, made[name])
