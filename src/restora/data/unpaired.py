"""Unpaired training data: degraded photos, and unrelated clean photos.

Leaves: `Batch`es whose clean photos are unrelated to the degraded ones (`unpaired`), drawn in passes of their
own. Validation and held-out photos are degraded photos only, with their clean version if the degradation is
applied here.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

from torch.utils.data import Dataset

from restora.data.crops import CropBatches, PhotoBatch
from restora.data.module import PhotoData
from restora.data.sources import Split, UnpairedFolder
from restora.data.store import PhotoStore
from restora.degradations.identity import Identity
from restora.keyed import image_key, sample_key
from restora.registry import register
from restora.types import Batch


@register("data", "unpaired")
class UnpairedData(PhotoData):
    """`PhotoData` of an `UnpairedFolder`, and its `clean_data`; the same arguments."""

    unpaired = True

    def _check(self) -> None:
        if not isinstance(self.source, UnpairedFolder):
            raise ValueError(
                "data=unpaired_folder takes the source unpaired_folder: two folders that do not match"
            )
        if self.target != "clean":
            raise ValueError("data.target=noisy has no meaning with unpaired photos: set data.target=clean")
        if self.frames != 1:
            raise ValueError("data.frames: unpaired photos are no clips: set data.frames=1")
        super()._check()

    @cached_property
    def clean_data(self) -> PhotoData:
        """The clean photos, unrelated to the degraded ones."""
        assert isinstance(self.source, UnpairedFolder)
        return PhotoData(
            source=self.source.clean_photos(),
            store_dir=self.store_dir,
            degradation=Identity(),
            patch_size=self.stages[0].patch_size,
            batch_size=self.stages[0].batch_size,
            steps_per_epoch=self.steps_per_epoch,
            stages=[vars(stage) for stage in self.stages],
            channels=self.channels,
            geometry=self.geometry,
            reductions=self.reductions,
            transforms=self.transforms,
            seed=sample_key(self.seed, image_key("strangers")),  # the word is part of every run's numbers
        )

    def stores(self, split: Split) -> dict[str, PhotoStore]:
        clean = self.clean_data.store(split)
        return super().stores(split) | ({} if clean is None else {f"{self.source.name}, clean": clean})

    def check_sizes(self) -> None:
        super().check_sizes()
        self.clean_data.check_sizes()

    def prepare_data(self) -> None:
        super().prepare_data()
        self.clean_data.prepare_data()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.clean_data.trainer = self.trainer  # its processes share the photos
        self.clean_data.setup(stage)

    def training_batches(self) -> "BothBatches":
        return BothBatches(super().training_batches(), self.clean_data.training_batches())

    def degraded(self, batch: Any) -> Batch:
        if "photos" not in batch:
            return super().degraded(batch)
        made = super().degraded(batch["photos"])
        clean = self.clean_data.degraded(batch["clean"]).clean
        return replace(made, clean=clean, unpaired=True)


class BothBatches(Dataset[dict[str, PhotoBatch]]):
    """Training batch number i of this process: degraded photos, and unrelated clean ones."""

    def __init__(self, photos: CropBatches, clean: CropBatches) -> None:
        self.photos, self.clean = photos, clean

    def __len__(self) -> int:
        raise TypeError("training batches have no end; the sampler counts those of an epoch")

    def __getitem__(self, batch: int) -> dict[str, PhotoBatch]:
        return {"photos": self.photos[batch], "clean": self.clean[batch]}

    def described(self) -> dict[str, Any]:
        """The plain values that determine the streams of crops."""
        # by the names that checkpoints hold
        return {"photos": self.photos.described(), "strangers": self.clean.described()}
