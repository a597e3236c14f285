"""The data module of photos: packed once, cut into crops, degraded on the device.

Enters: a source of photos and a degradation. Leaves: `Batch`es. Note: `batch_size` is the batch of
all processes together, so that the same configuration trains the same on any number of devices. Validation
and test photos are distributed over the processes without repetition; a process that would get none gets one
photo with empty `names`, which is not counted. Validation photos of equal size share a batch of at most as
many pixels as a training batch.

Legend: B samples, C channels, H height, W width, s scale.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from restora.data.ahead import Ahead, OneAhead
from restora.data.checks import SMALLEST_EVALUATED, Target, check_data
from restora.data.clips import View, windows
from restora.data.crops import CropBatches, Geometry, PhotoBatch, WholePhotos, usable_size
from restora.data.degrading import made, to_float
from restora.data.loaders import EvaluationLoader, TrainingLoader, Workers, evaluation_loader, workers_of
from restora.data.motion import CameraMotion
from restora.data.packing import NoneUsable, pack
from restora.data.replayed import Make, Replayed, wanted
from restora.data.schedule import CropSchedule, ResumableSampler, read_stages
from restora.data.sizes import large_enough
from restora.data.sources import SPLITS, Source, Split, files_of
from restora.data.store import LeftOut, PhotoStore, listed, warn_of_equal_pairs, warn_of_left_out
from restora.degradations.base import Degradation
from restora.degradations.compose.composition import OnDemand
from restora.degradations.frames import degrade_frames, frame_keys
from restora.keyed import KeyedGenerator
from restora.photos.errors import DataError
from restora.photos.reading import Channels, channel_word
from restora.registry import register
from restora.types import Batch

_SPLITS_OF: dict[str, tuple[Split, ...]] = {
    "fit": SPLITS,
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}


@register("data", "photos")
class PhotoData(LightningDataModule):
    """Training crops and validation and test photos of one source.

    `patch_size` is of the clean photo. `batch_size` counts the crops of one training batch on all processes
    together. `steps_per_epoch` is only the length of Lightning's epochs: crops are drawn in passes over the
    photos. `stages` replaces both sizes from given steps on (`start_step`, `patch_size`, `batch_size`), for
    progressive learning. `val_crop` and `test_crop` evaluate only the centre of
    each photo. `geometry` augments training crops: `d4` with all eight symmetries of the square,
    `hflip` with horizontal flips, `none`. `reductions`: a training crop is cut so many times larger, one of
    these numbers drawn for each, and reduced by averaging, which shows a network as much of a photo as a
    larger patch does, without its cost. `transforms` are further albumentations transforms of the clean
    crop. `target` noisy: the training target is another degraded version of the photo, from keys of its own.
    `workers` are processes that cut training crops, by `workers_of`. `channels` is a number, rgb for 3 or
    gray for 1. With `frames` T > 1 the input is a clip of T frames, folded into channels, and what is learnt
    its middle frame: of videos, if the source has any, else of photos that move by `motion` (`CameraMotion`).
    """

    overlap = True
    """Whether a GPU gets and degrades the next batch while a step is computed (ahead.py)."""
    unpaired = False
    """Whether the clean training photos are unrelated to the degraded ones."""

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
        test_crop: int | None = None,
        channels: Channels = "rgb",
        geometry: Geometry = "d4",
        reductions: Sequence[int] = (1,),
        transforms: Sequence[Any] | None = None,
        target: Target = "clean",
        workers: Workers = 0,
        seed: int = 1,
        frames: int = 1,
        motion: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.source, self.store_dir, self.degradation = source, Path(store_dir), degradation
        self.stages = read_stages(stages, patch_size, batch_size)
        self.steps_per_epoch = steps_per_epoch
        self.val_crop, self.test_crop = val_crop, test_crop
        self.channels, self.geometry, self.reductions = channels, geometry, tuple(reductions)
        self.transforms, self.workers, self.seed = list(transforms or ()), workers, seed
        self.target, self.frames, self.given_motion = target, frames, motion
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._stores: dict[Split, PhotoStore] = {}
        self._named: set[Split] = set()
        self._check()
        self.motion = None if frames == 1 or source.clips else CameraMotion.of(motion)
        largest = max(stage.patch_size for stage in self.stages)
        self.margin = 0 if self.motion is None else self.motion.margin(frames, largest)
        view = self._view(self.margin)
        self._replayed = Replayed(partial(made, degradation, target == "noisy", view=view))

    def _check(self) -> None:
        check_data(self)
        if not self.source.paired:
            self._check_patches()

    def _check_patches(self) -> None:
        for stage in self.stages:
            if stage.patch_size % self.scale:
                raise ValueError(
                    f"data.patch_size={stage.patch_size} is of the clean photo and must be a multiple of the "
                    f"scale {self.scale}: set {max(stage.patch_size // self.scale, 1) * self.scale}"
                )

    @property
    def comes_degraded(self) -> bool:
        """Whether the network's input is read from disk instead of being degraded here."""
        return self.source.paired or self.source.holds == "degraded"

    @property
    def has_clean(self) -> bool:
        """Whether there are clean photos, or partners in their place."""
        return self.source.holds != "degraded"

    @property
    def scale(self) -> int:
        """Sides of the clean photos over those of the degraded ones."""
        return self.source.scale if self.source.paired else self.degradation.scale

    @property
    def condition_channels(self) -> int:
        """The number of channels of a batch's condition."""
        return 0 if self.source.paired else self.degradation.condition_channels

    @property
    def undamaged(self) -> tuple[float, ...]:
        """The value of each channel of the condition at undamaged pixels: 0 for a noise map, 1 for a mask."""
        return () if self.source.paired else self.degradation.undamaged

    @property
    def has_test(self) -> bool:
        """Whether the source has held-out photos for the final test."""
        return bool(files_of(self.source, "test"))

    # --- packing --------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Packs the photos of all splits, unless that is done, and names the files that cannot be used."""
        self.source.check()
        if not self._named and (unread := self.source.left_out()):
            warn_of_left_out("", [LeftOut(str(path), reason) for path, reason in unread.items()])
        for split in SPLITS:
            store = self.store(split)
            if store is None or split in self._named:  # once, not again before a test
                continue
            self._named.add(split)
            if gone := self.left_out(store, split):
                warn_of_left_out(f" for {split}", gone)
            warn_of_equal_pairs(split, store)

    def setup(self, stage: str) -> None:
        """Opens the packed stores. Raises `DataError` or ValueError if photos and settings do not fit."""
        self._check_patches()
        for split in _SPLITS_OF[stage]:
            store = self.store(split)
            if store is not None:
                self._stores[split] = store
        self.check_processes(self._world_size)

    def check_processes(self, count: int) -> None:
        """Raises ValueError for a batch size that `count` processes cannot share equally."""
        for part in self.stages:
            if part.batch_size % count:
                raise ValueError(
                    f"data.batch_size={part.batch_size} is shared by {count} processes: "
                    f"set a multiple of {count}"
                )

    def store(self, split: Split) -> PhotoStore | None:
        """The packed photos of a split, packed now if they are not; None if the source has no such split.

        Raises `DataError` that names all files of all splits that cannot be used, if none of this one can.
        """
        try:
            return self._packed(split)
        except NoneUsable as error:
            gone = [*error.left_out, *self._unusable(other for other in SPLITS if other != split)]
            raise DataError(
                f"no file for {split} can be used as a photo. These cannot:\n{listed(gone)}\n"
                f"Remove or replace them: without a folder {split}/, other photos then take their places"
            ) from error

    def _unusable(self, splits: Iterable[Split]) -> Iterator[LeftOut]:
        for split in splits:
            try:
                store = self._packed(split)
            except NoneUsable as error:
                yield from error.left_out
            else:
                yield from () if store is None else store.left_out

    def _packed(self, split: Split) -> PhotoStore | None:
        files = files_of(self.source, split)
        if not files:
            return None
        name = f"{self.source.name}-{split}-{channel_word(self.channels)}"
        return pack(
            files,
            store_dir=self.store_dir,
            name=name,
            channels=self.channels,
            scale=self.source.scale,
            reader=self.source.reader,
        )

    def stores(self, split: Split) -> dict[str, PhotoStore]:
        """All packed photos of a split, by the names of their sources."""
        store = self.store(split)
        return {} if store is None else {self.source.name: store}

    def left_out(self, store: PhotoStore, split: Split) -> list[LeftOut]:
        """The files that could not be packed, and the photos that are too small for this split."""
        least = self._least_side(split)
        sizes = ((entry, usable_size(entry, self.scale)) for entry in store.entries)
        small = [
            LeftOut(entry.path, f"is too small: {width}x{height}, at least {least}x{least} is needed")
            for entry, (height, width) in sizes
            if min(height, width) < least
        ]
        return [*store.left_out, *small]

    def _least_side(self, split: Split) -> int:
        if split == "train":
            largest = max(stage.patch_size for stage in self.stages)
            return (largest + 2 * self.margin) * min(self.reductions)
        return SMALLEST_EVALUATED * self.scale

    def _usable(self, split: Split) -> tuple[PhotoStore, list[int]]:
        """The store of a split and the numbers of its photos that are large enough."""
        if split not in self._stores:
            raise DataError(f"{self.source.name} has no photos for {split}")
        return self._stores[split], self._large_enough(self._stores[split], split)

    def check_sizes(self) -> None:
        """Raises `DataError` for a split whose photos are all too small; packs the photos."""
        for split in SPLITS:
            if (store := self.store(split)) is not None:
                self._large_enough(store, split)

    def _large_enough(self, store: PhotoStore, split: Split) -> list[int]:
        least, reduction = self._least_side(split), min(self.reductions)
        return large_enough(
            store, split, least=least, scale=self.scale, reduction=reduction, margin=self.margin
        )

    # --- loaders --------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainingLoader:
        sampler = ResumableSampler(steps_per_epoch=self.steps_per_epoch, batches_done=self._batches_done)
        return TrainingLoader(
            self.training_batches(),
            sampler,
            workers=workers_of(self.workers, self.trainer),
            pin_memory=self._pin_memory,
            ahead=self._ahead,
        )

    def training_batches(self) -> Any:
        """This process's training batches, by their numbers: crops of the photos."""
        store, photos = self._usable("train")
        schedule = CropSchedule(
            seed=self.seed,
            photos=len(photos),
            stages=self.stages,
            batches_per_step=1 if self.trainer is None else self.trainer.accumulate_grad_batches,
            rank=self._rank,
            world_size=self._world_size,
        )
        return CropBatches(
            store=store,
            photos=photos,
            schedule=schedule,
            paired=self.source.paired,
            scale=self.scale,
            geometry=self.geometry,
            reductions=self.reductions,
            transforms=self.transforms,
            margin=self.margin,
            windows=self._windows(store),
        )

    def _windows(self, store: PhotoStore) -> list[list[int]] | None:
        return windows(store.entries, self.frames) if self.frames > 1 and self.source.clips else None

    def val_dataloader(self) -> EvaluationLoader:
        return self._evaluation_loader("val", self.val_crop, pixels=self._training_pixels)

    def test_dataloader(self) -> EvaluationLoader:
        """One photo at a time, because the report states the time per photo."""
        return self._evaluation_loader("test", self.test_crop, pixels=0)

    @property
    def _training_pixels(self) -> int:
        """Clean pixels of a process's largest training batch: evaluating as many needs less memory."""
        return max(stage.batch_size * stage.patch_size**2 for stage in self.stages) // self._world_size

    def _evaluation_loader(self, split: Split, crop: int | None, *, pixels: int) -> EvaluationLoader:
        return evaluation_loader(self.whole_photos(split, crop, pixels=pixels), pin_memory=self._pin_memory)

    def whole_photos(self, split: Split, crop: int | None, *, pixels: int) -> WholePhotos:
        """This process's photos of a split, in batches of at most `pixels` where they are of equal size."""
        store, photos = self._usable(split)
        own = photos[self._rank :: self._world_size]
        return WholePhotos(
            store=store,
            photos=own or photos[:1],
            paired=self.source.paired,
            scale=self.scale,
            crop=crop,
            counted=bool(own),
            pixels=pixels,
            windows=self._windows(store),
        )

    def _batches_done(self) -> int:
        """Training batches done since the run began, across resumptions.

        `processed` is right wherever a checkpoint may be written: it counts a batch as soon as its step is
        done, and Lightning repeats no batch that it has counted.
        """
        if self.trainer is None:
            return 0
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(total.processed)

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _pin_memory(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    # --- on the device --------------------------------------------------------------------------------------

    @property
    def _ahead(self) -> OneAhead | None:
        """The prefetcher of training batches.

        None on a CPU, which has no idle time, and for `OnDemand`, whose degradation depends on a validation
        that may still come before the batch.
        """
        if not self.overlap or self.trainer is None or isinstance(self.degradation, OnDemand):
            return None
        device = self.trainer.strategy.root_device
        return self._begun_on(device) if device.type == "cuda" else None

    def _begun_on(self, device: torch.device) -> OneAhead:
        send = super().transfer_batch_to_device
        return OneAhead(lambda batch: self.degraded(send(batch, device, 0)), device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, Ahead) or device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:  # noqa: ARG002
        return batch.ready() if isinstance(batch, Ahead) else self.degraded(batch)

    def degraded(self, batch: PhotoBatch) -> Batch:
        """uint8 -> float32 in [0,1] -> degraded, on the device that the batch has reached."""
        if self.source.holds == "degraded":
            return Batch(None, to_float(batch["clean"]), None, batch["names"], keys=batch["key"])
        if self.source.paired:
            pair = to_float(batch["clean"]), to_float(batch["degraded"])
            return Batch(*pair, None, batch["names"], keys=batch["key"])
        training = self.trainer is not None and self.trainer.training
        degradation = self.degradation
        if isinstance(degradation, OnDemand) and training:
            degradation = degradation.in_training
        view = self._view(batch.get("margin", 0), batch.get("frame_keys"))
        make: Make = partial(made, degradation, self.target == "noisy", view=view)
        if training and degradation is self.degradation and wanted(batch["key"].device):
            make = self._replayed
        clean, image, condition, target = make(batch["clean"], batch["key"])
        assert clean is not None
        assert image is not None
        photos = clean

        def redegrade(keys: Tensor) -> Tensor:
            if view is None:
                return degradation(photos, KeyedGenerator(keys)).image
            clips, _ = view(to_float(batch["clean"]), batch["key"])
            return degrade_frames(degradation, clips, frame_keys(keys, view.frames)).image

        return Batch(
            clean,
            image,
            condition,
            batch["names"],
            target=target,
            keys=batch["key"],
            redegrade=redegrade,
            frames=self.frames,
        )

    def _view(self, margin: int, keys: Tensor | None = None) -> View | None:
        return None if self.frames == 1 else View(self.frames, self.motion, margin, keys)
