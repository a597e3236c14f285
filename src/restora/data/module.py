"""Photos on the way to a family: packed once, cut into crops, degraded on the device.

Enters: a source of photos and a degradation. Leaves: `Batch`es. What surprises: `batch_size` is the batch of
all processes together, so that the same configuration trains the same on any number of devices; validation and
test photos are dealt out to the processes without repeating any, and a process that would get none is given
one whose `names` are empty, so that it takes part and counts nothing.

Legend: B samples, C channels, H height, W width, s scale.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from restora.data.crops import CropBatches, Geometry, PhotoBatch, WholePhotos, usable_size
from restora.data.packing import pack
from restora.data.photos import Channels
from restora.data.schedule import CropSchedule, ResumableSampler, Stage
from restora.data.sources import SPLITS, DataError, Source, Split
from restora.data.store import LeftOut, PhotoStore
from restora.degradations.base import Degradation
from restora.degradations.identity import Identity
from restora.degradations.keyed import KeyedGenerator
from restora.types import Batch

log = logging.getLogger(__name__)
_SMALLEST_JUDGED = 32
"""Sides of validation and test photos, in pixels of the degraded one: below, SSIM and networks have no meaning."""


class PhotoData(LightningDataModule):
    """Training crops and validation and test photos of one source.

    `patch_size` is of the clean photo. `batch_size` counts the crops of one training batch on all processes
    together. `steps_per_epoch` is only how often Lightning's epochs turn: crops are drawn in passes over the
    photos. `stages` replaces both numbers from given training batches on (`start_step`, `patch_size`,
    `batch_size`), for progressive learning. `val_crop` judges the centre of validation photos alone; test photos
    are always whole. `geometry` turns training crops: `d4` by all eight symmetries, `hflip` by mirroring,
    `none`. `transforms` are further albumentations transforms of the clean crop.
    """

    def __init__(
        self,
        *,
        source: Source,
        store_dir: str | Path,
        degradation: Degradation,
        patch_size: int,
        batch_size: int,
        steps_per_epoch: int,
        stages: Sequence[Mapping[str, int]] | None = None,
        val_crop: int | None = None,
        channels: Channels = "rgb",
        geometry: Geometry = "d4",
        transforms: Sequence[Any] | None = None,
        workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.source, self.store_dir, self.degradation = source, Path(store_dir), degradation
        self.stages = _stages(stages, patch_size, batch_size)
        self.steps_per_epoch, self.val_crop = steps_per_epoch, val_crop
        self.channels, self.geometry = channels, geometry
        self.transforms, self.workers, self.seed = list(transforms or ()), workers, seed
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._stores: dict[Split, PhotoStore] = {}
        self._check()

    def _check(self) -> None:
        if self.source.paired and not isinstance(self.degradation, Identity):
            raise ValueError(
                f"the photos of {self.source.name} come with their degraded partners, so degradation="
                f"{type(self.degradation).__name__} would not be used: set degradation=identity"
            )
        if self.channels not in ("rgb", "gray"):
            raise ValueError(f"data.channels is rgb or gray, got {self.channels!r}")
        if self.geometry not in ("d4", "hflip", "none"):
            raise ValueError(f"data.geometry is d4, hflip or none, got {self.geometry!r}")
        for name, value, least in (
            ("steps_per_epoch", self.steps_per_epoch, 1),
            ("val_crop", self.val_crop, _SMALLEST_JUDGED),
            ("workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"data.{name} is at least {least}, got {value}")
        if not self.source.paired:
            self._check_patches()

    def _check_patches(self) -> None:
        for stage in self.stages:
            if stage.patch_size % self.scale:
                raise ValueError(
                    f"data.patch_size={stage.patch_size} is of the clean photo and must be a multiple of the scale "
                    f"{self.scale}: set {max(stage.patch_size // self.scale, 1) * self.scale}"
                )

    @property
    def scale(self) -> int:
        """Sides of the clean photos over those of the degraded ones."""
        return self.source.scale if self.source.paired else self.degradation.scale

    @property
    def condition_channels(self) -> int:
        """K of the condition that comes with a batch."""
        return 0 if self.source.paired else self.degradation.condition_channels

    @property
    def has_test(self) -> bool:
        """Whether the source holds photos back for the end."""
        return bool(self.source.photos("test"))

    # --- packing ------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Packs the photos of all splits, unless that is done, and names the files that cannot be used."""
        self.source.check()
        for split in SPLITS:
            store = self._pack(split)
            if store is not None:
                _say_what_is_left_out(split, [*store.left_out, *self.too_small(store, split)])

    def setup(self, stage: str) -> None:
        """Opens the packed stores. Raises `DataError` or ValueError for what these photos cannot give."""
        if self.source.paired:
            self._check_patches()
        for split in SPLITS if stage == "fit" else (_SPLIT_OF[stage],):
            store = self._pack(split)
            if store is not None:
                self._stores[split] = store
        for part in self.stages:
            if part.batch_size % self._world_size:
                raise ValueError(
                    f"data.batch_size={part.batch_size} is shared by {self._world_size} processes: set a multiple of it"
                )

    def _pack(self, split: Split) -> PhotoStore | None:
        files = self.source.photos(split)
        if not files:
            return None
        name = f"{self.source.name}-{split}-{self.channels}"
        return pack(
            files, store_dir=self.store_dir, name=name, channels=self.channels, scale=self.source.scale
        )

    def too_small(self, store: PhotoStore, split: Split) -> list[LeftOut]:
        """The photos of a store that no crop fits into, or that are too small to be judged."""
        least = self._least_side(split)
        sizes = ((entry, usable_size(entry, self.scale)) for entry in store.entries)
        return [
            LeftOut(entry.path, f"is too small: {width}x{height}, at least {least}x{least} is needed")
            for entry, (height, width) in sizes
            if min(height, width) < least
        ]

    def _least_side(self, split: Split) -> int:
        if split == "train":
            return max(stage.patch_size for stage in self.stages)
        return _SMALLEST_JUDGED * self.scale

    def _usable(self, split: Split) -> tuple[PhotoStore, list[int]]:
        """The store of a split and the numbers of its photos that are large enough."""
        if split not in self._stores:
            raise DataError(f"{self.source.name} has no photos for {split}")
        store, least = self._stores[split], self._least_side(split)
        numbers = [i for i, entry in enumerate(store.entries) if min(usable_size(entry, self.scale)) >= least]
        if not numbers:
            largest = max(min(usable_size(entry, self.scale)) for entry in store.entries)
            mend = f"set data.patch_size to {largest} or less" if split == "train" else "give larger photos"
            raise DataError(f"all photos for {split} are smaller than {least}x{least}: {mend}")
        return store, numbers

    # --- loaders ------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[PhotoBatch]:
        store, photos = self._usable("train")
        schedule = CropSchedule(
            seed=self.seed,
            photos=len(photos),
            stages=self.stages,
            rank=self._rank,
            world_size=self._world_size,
        )
        batches = CropBatches(
            store=store,
            photos=photos,
            schedule=schedule,
            paired=self.source.paired,
            scale=self.scale,
            geometry=self.geometry,
            transforms=self.transforms,
        )
        return self._loader(
            batches, ResumableSampler(steps_per_epoch=self.steps_per_epoch, batches_done=self._batches_done)
        )

    def val_dataloader(self) -> DataLoader[PhotoBatch]:
        return self._judging_loader("val", self.val_crop)

    def test_dataloader(self) -> DataLoader[PhotoBatch]:
        return self._judging_loader("test", None)

    def _judging_loader(self, split: Split, crop: int | None) -> DataLoader[PhotoBatch]:
        store, photos = self._usable(split)
        own = photos[self._rank :: self._world_size]
        whole = WholePhotos(
            store=store,
            photos=own or photos[:1],
            paired=self.source.paired,
            scale=self.scale,
            crop=crop,
            counted=bool(own),
        )
        return self._loader(whole, None)

    def _loader(self, dataset: Any, sampler: Sampler[int] | None) -> DataLoader[PhotoBatch]:
        trainer = self.trainer
        return DataLoader(
            dataset,
            batch_size=None,  # a dataset gives whole batches
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )

    def _batches_done(self) -> int:
        """Training batches done since the run began, over resumptions."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.total.processed

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    # --- on the device ------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: PhotoBatch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """uint8 -> float32 in [0,1] -> degraded, on the device that the batch has reached."""
        clean = _to_float(batch["clean"])
        if self.source.paired:
            return Batch(clean, _to_float(batch["degraded"]), None, batch["names"])
        degraded = self.degradation(clean, KeyedGenerator(batch["key"]))
        return Batch(clean, degraded.image, degraded.condition, batch["names"])


_SPLIT_OF: dict[str, Split] = {"validate": "val", "test": "test", "predict": "test"}


def _stages(
    stages: Sequence[Mapping[str, int]] | None, patch_size: int, batch_size: int
) -> tuple[Stage, ...]:
    rows = [Stage(**stage) for stage in stages] if stages else [Stage(0, patch_size, batch_size)]
    starts = [row.start_step for row in rows]
    if starts[0] != 0 or sorted(set(starts)) != starts:
        raise ValueError(f"data.stages begin at start_step 0 and rise, got {starts}")
    for row in rows:
        if row.patch_size < 1 or row.batch_size < 1:
            raise ValueError(f"data.patch_size and data.batch_size are at least 1, got {row}")
    return tuple(rows)


def _to_float(photos: torch.Tensor) -> torch.Tensor:
    """uint8 -> float32 in [0,1], in the plain memory order that degradations may count on."""
    return photos.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _as_it_is(batch: PhotoBatch) -> PhotoBatch:
    return batch


def _say_what_is_left_out(split: str, files: Sequence[LeftOut]) -> None:
    if not files:
        return
    listed = "\n".join(f"  {file.path}: {file.reason}" for file in files[:20])
    more = f"\n  and {len(files) - 20} more" if len(files) > 20 else ""
    log.warning("%d photos for %s are left out:\n%s%s", len(files), split, listed, more)
