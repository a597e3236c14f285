"""The held-out photos of a run, degraded and cut as they were for its own figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, Planes, check_photos
from restora.image import enlarge
from restora.photos.reading import channel_count
from restora.registry import build
from restora.types import Batch
from restora.words import NOISY_REFERENCE

if TYPE_CHECKING:
    from restora.data.module import PhotoData


def photo_data(config: Mapping[str, Any]) -> "PhotoData":
    """The data module of a run's configuration. Raises ValueError where its photos are not there."""
    from restora.data.module import PhotoData

    node = config.get("data")
    if not isinstance(node, dict) or "_target_" not in node:
        raise ValueError("its run.json does not say which photos they were")
    made = build(node | {"transforms": None, "degradation": config.get("degradation")}, "data")
    if not isinstance(made, PhotoData):
        raise ValueError(f"its data are a {type(made).__name__}")
    made.source.check()
    return made


@dataclass(frozen=True, kw_only=True)
class HeldOut(Benchmark):
    """`configuration` is that of a run, whose test photos are evaluated by its protocol."""

    task: ClassVar[str] = "restore"

    configuration: dict[str, Any]
    reference: str | None = None
    """`noisy` where the photos have other noisy versions instead of clean ones (Noise2Noise on pairs)."""

    @cached_property
    def data(self) -> "PhotoData":
        data = photo_data(self.configuration)
        data.setup("test")
        return data

    @cached_property
    def _dataset(self) -> Any:
        return self.data.test_dataloader().dataset

    @cached_property
    def photos(self) -> list[Path]:
        entries = self._dataset.store.entries
        return [Path(entries[photo].path) for (photo,) in self._dataset.batches][: self.limit]

    def check(self) -> None:
        """Raises ValueError for photos that are not there; their pixels are in the packed store."""
        check_photos(self.photos, "data.source", pixels=False)

    @property
    def title(self) -> str:
        noisy = ", against noisy photos" if self.reference == NOISY_REFERENCE else ""
        return f"held-out photos of {self.root}, {self.color}{noisy}"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("data", "_dataset")}

    def describe(self) -> dict[str, Any]:
        values = super().describe()
        config = values.pop("configuration")
        if values["reference"] != NOISY_REFERENCE:
            del values["reference"]  # older results have no such entry
        data = {key: config["data"].get(key) for key in ("source", "channels", "test_crop")}
        if config["data"].get("frames", 1) != 1:  # other results have no such entries
            data |= {key: config["data"].get(key) for key in ("frames", "motion")}
        return values | {"degradation": config.get("degradation"), "data": data}

    def planes(self, intake: Intake) -> Planes:
        channels, frames = channel_count(self.data.channels), self.data.frames
        if intake.frames not in (1, frames):
            raise ValueError(
                f"the network takes {intake.frames} frames of a video, the run's data give {frames}"
            )
        if intake.channels not in (None, channels):
            raise ValueError(
                f"the network takes {intake.channels} channels, the run's photos have {channels}"
            )
        return "gray" if channels == 1 else "rgb"

    def observe(self, index: int, intake: Intake) -> Observation:
        self.planes(intake)
        batch: Batch = self.data.on_after_batch_transfer(self._dataset[index], 0)
        if batch.clean is None:
            raise ValueError(
                f"{batch.names[0]} has no clean version to compare with: name photos that have, benchmark=…"
            )
        return Observation(
            name=batch.names[0],
            degraded=batch.degraded if intake.frames == batch.frames else batch.middle,
            clean=batch.clean,
            baseline=enlarge(batch.middle, batch.clean.shape[-2:]),
            condition=batch.condition,
            scale=self.data.scale,
        )

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        raise NotImplementedError("held-out photos come degraded")
