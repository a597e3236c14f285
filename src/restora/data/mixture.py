"""Photos of several sources in one training, each part with its own degradation and share.

Enters: parts, each with a source, a degradation (or pairs that come degraded) and a share. Leaves: `Batch`es
with samples of all parts. The part of sample number g of a run, and its number within the part, are functions
of g alone; a part's samples are those of a run of its own. So nothing depends on processes, workers or
resumption here either. Each part is packed in a store of its own.

Legend: B samples.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from restora.data.checks import Target
from restora.data.crops import CropBatches, Geometry, PhotoBatch, WholePhotos
from restora.data.loaders import EvaluationLoader, Workers, evaluation_loader
from restora.data.module import PhotoData
from restora.data.packing import PhotoFile
from restora.data.sources import Source, Split
from restora.data.store import Entry, PhotoStore
from restora.degradations.base import Degradation
from restora.degradations.compose.composition import OnDemand, OneOf
from restora.degradations.identity import Identity
from restora.keyed import image_key, sample_key
from restora.photos.reading import Channels
from restora.registry import register
from restora.types import Batch

_PERIOD = 1000
"""Samples after which the order of the parts repeats: shares are thousandths."""
Member = TypeVar("Member")
Made = TypeVar("Made")
Mixed = dict[str, PhotoBatch]
"""Samples of one batch by their part."""


@register("data", "part")
class Part:
    """A source, the degradation of its photos, and its share of the samples.

    The degradation is null for pairs and for photos that come degraded; shares are relative to those of
    the other parts.
    """

    def __init__(self, *, source: Source, degradation: Degradation | None = None, share: float = 1.0) -> None:
        if isinstance(degradation, OnDemand):
            raise ValueError(
                "on_demand follows validation only where it is the whole degradation, not that of a part"
            )
        self.source, self.degradation, self.share = source, degradation or Identity(), float(share)


@register("data", "mixture")
class MixtureData(PhotoData):
    """Training crops and validation and test photos of several parts.

    All arguments but `parts` are those of `PhotoData`, for all parts alike; `degradation` is each part's own.
    Parts agree in scale, and in whether they have clean photos; there is a condition if all give one of the
    same meaning. A photo's name begins with the name of its part.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Part],
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
        alike: dict[str, Any] = {
            "store_dir": store_dir,
            "patch_size": patch_size,
            "batch_size": batch_size,
            "steps_per_epoch": steps_per_epoch,
            "stages": stages,
            "val_crop": val_crop,
            "test_crop": test_crop,
            "channels": channels,
            "geometry": geometry,
            "reductions": reductions,
            "transforms": transforms,
            "target": target,
            "workers": workers,
            "frames": frames,
            "motion": motion,
        }
        self.turns = Turns({name: part.share for name, part in parts.items()})
        keys = {name: sample_key(seed, image_key(name)) for name in parts}
        self.members = _of_each(
            parts,
            lambda name, part: PhotoData(
                source=part.source, degradation=part.degradation, seed=keys[name], **alike
            ),
        )
        self._check_parts(degradation)
        made = {name: member.degradation for name, member in self.members.items()}
        super().__init__(
            source=JointSource({name: member.source for name, member in self.members.items()}),
            degradation=Identity() if self.comes_degraded else OneOf(stages=made),
            seed=seed,
            **alike,
        )

    def _check_parts(self, degradation: Degradation) -> None:
        if not isinstance(degradation, Identity):
            raise ValueError(
                f"each part of data=mixture has its own degradation, so {type(degradation).__name__} would "
                "not be used: set degradation=identity, and data.parts.NAME.degradation"
            )
        for what, values in (
            ("scale", _of_each(self.members, lambda _, member: member.scale)),
            ("clean photos", {name: member.has_clean for name, member in self.members.items()}),
        ):
            if len(set(values.values())) > 1:
                listed = ", ".join(f"{name} {value}" for name, value in values.items())
                raise ValueError(f"the parts of data=mixture must agree in {what}, got {listed}")

    # --- of all parts ---------------------------------------------------------------------------------------

    @property
    def comes_degraded(self) -> bool:
        return any(member.comes_degraded for member in self.members.values())

    @property
    def has_clean(self) -> bool:
        return all(member.has_clean for member in self.members.values())

    @property
    def scale(self) -> int:
        return next(iter(self.members.values())).scale

    @property
    def undamaged(self) -> tuple[float, ...]:
        meanings = {member.undamaged for member in self.members.values()}
        return meanings.pop() if len(meanings) == 1 else ()

    @property
    def condition_channels(self) -> int:
        return len(self.undamaged)

    def stores(self, split: Split) -> dict[str, PhotoStore]:
        found = _of_each(self.members, lambda _, member: member.store(split))
        return {name: store for name, store in found.items() if store is not None}

    def check_sizes(self) -> None:
        _of_each(self.members, lambda _, member: member.check_sizes())

    def prepare_data(self) -> None:
        _of_each(self.members, lambda _, member: member.prepare_data())

    def setup(self, stage: str) -> None:
        for member in self.members.values():
            member.trainer = self.trainer  # its processes share the photos
        _of_each(self.members, lambda _, member: member.setup(stage))

    # --- loaders --------------------------------------------------------------------------------------------

    def training_batches(self) -> "MixedBatches":
        crops = {name: member.training_batches() for name, member in self.members.items()}
        return MixedBatches(crops, self.turns, self.seed)

    def _evaluation_loader(self, split: Split, crop: int | None, *, pixels: int) -> EvaluationLoader:
        members = {name: m for name, m in self.members.items() if m.source.photos(split)}
        photos = {name: m.whole_photos(split, crop, pixels=pixels) for name, m in members.items()}
        return evaluation_loader(MixedPhotos(photos), pin_memory=self._pin_memory)

    # --- on the device --------------------------------------------------------------------------------------

    def degraded(self, batch: Any) -> Batch:
        """Each part's samples, degraded by the part's own degradation, one part after another."""
        made = [self.members[name].degraded(of) for name, of in batch.items()]
        joined = join(made)
        return joined if self.undamaged else replace(joined, condition=None)


class JointSource(Source):
    """The sources of all parts, as one source."""

    unique_names = False

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self.parts = dict(parts)
        self.name = "mixture of " + " and ".join(f"{name} ({part.name})" for name, part in parts.items())
        counts = [set(part.channel_counts) for part in parts.values() if part.channel_counts is not None]
        self.channel_counts = tuple(sorted(set.intersection(*counts))) if counts else None
        self.partners_may_be_noisy = any(part.partners_may_be_noisy for part in parts.values())
        self.holds = "degraded" if all(part.holds == "degraded" for part in parts.values()) else "clean"

    def check(self) -> None:
        _of_each(self.parts, lambda _, part: part.check())

    def photos(self, split: Split) -> list[PhotoFile]:
        photos = _of_each(self.parts, lambda _, part: part.photos(split))
        return [photo for of_part in photos.values() for photo in of_part]

    def left_out(self) -> dict[Path, str]:
        return {path: reason for part in self.parts.values() for path, reason in part.left_out().items()}

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        _of_each(self.parts, lambda _, part: part.obtain(tracks=tracks, keep_archives=keep_archives))


def _of_each(parts: Mapping[str, Member], work: Callable[[str, Member], Made]) -> dict[str, Made]:
    """What `work` makes of each part; its errors name the part, and the settings of its source."""
    made = {}
    for name, part in parts.items():
        try:
            made[name] = work(name, part)
        except ValueError as error:
            said = re.sub(r"\bdata\.source\b", f"data.parts.{name}.source", str(error))
            named = said if f"data.parts.{name}" in said else f"data.parts.{name}: {said}"
            error.args = (named,)
            raise
    return made


class Turns:
    """The part of each sample of a run: always the one that is furthest behind its share."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        total = sum(shares.values())
        if not shares or min(shares.values()) < 0 or not 0 < total < math.inf:
            raise ValueError(
                f"data.parts: shares must be numbers >= 0 of one part or more, got {dict(shares)}"
            )
        self.names = list(shares)
        wanted = np.array([share / total for share in shares.values()])
        if small := [name for name, share in zip(shares, wanted, strict=True) if share < 1 / _PERIOD]:
            raise ValueError(f"data.parts.{small[0]}.share is below a thousandth of all: leave the part out")
        behind = np.arange(1, _PERIOD + 1)[:, None] * wanted  # (period,parts): samples due to each
        self._part = np.empty(_PERIOD, np.intp)
        self._before = np.zeros((_PERIOD + 1, len(wanted)), np.intp)
        for place in range(_PERIOD):
            self._part[place] = int(np.argmax(behind[place] - self._before[place]))
            self._before[place + 1] = self._before[place]
            self._before[place + 1, self._part[place]] += 1

    def of(self, sample: int) -> tuple[str, int]:
        """The part of sample number `sample` of a run, and its number within the part."""
        rounds, place = divmod(sample, _PERIOD)
        part = self._part[place]
        number = rounds * self._before[_PERIOD, part] + self._before[place, part]
        return self.names[part], int(number)


class MixedBatches(Dataset[Mixed]):
    """Training batch number i of this process: the samples of each part."""

    def __init__(self, parts: Mapping[str, CropBatches], turns: Turns, seed: int) -> None:
        self.parts, self.turns, self.seed = dict(parts), turns, seed
        self.schedule = next(iter(parts.values())).schedule

    def __len__(self) -> int:
        raise TypeError("training batches have no end; the sampler counts those of an epoch")

    def __getitem__(self, batch: int) -> Mixed:
        numbers: dict[str, list[int]] = {name: [] for name in self.parts}
        for sample in self.schedule.samples(batch):
            name, number = self.turns.of(sample)
            numbers[name].append(number)
        size = self.schedule.stage(batch).patch_size
        return {
            name: self.parts[name].cut([self.parts[name].schedule.crop(one) for one in found], size)
            for name, found in numbers.items()
            if found
        }

    def described(self) -> dict[str, Any]:
        """The plain values that determine the stream of crops."""
        parts = {name: part.described() for name, part in self.parts.items()}
        return {"seed": self.seed, "parts": parts, "turns": self.turns.names}


@dataclass(frozen=True)
class _Entries:
    entries: list[Entry]


class MixedPhotos(Dataset[Mixed]):
    """Whole photos, one part after another; the part's name is prefixed to theirs."""

    def __init__(self, parts: Mapping[str, WholePhotos]) -> None:
        self.parts = dict(parts)
        self.places = [(name, index) for name, part in parts.items() for index in range(len(part))]
        first, entries = 0, []
        self.batches: list[list[int]] = []
        for name, part in parts.items():
            self.batches += [[first + photo for photo in photos] for photos in part.batches]
            entries += [replace(entry, name=f"{name}_{entry.name}") for entry in part.store.entries]
            first = len(entries)
        self.store = _Entries(entries)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Mixed:
        if index >= len(self.places):
            raise IndexError(index)
        name, place = self.places[index]
        made = self.parts[name][place]
        return {name: {**made, "names": [f"{name}_{one}" for one in made["names"]]}}


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of several, in their order; a field that not all have is left out."""

    def all_of(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if len(known) == len(values) else None

    sizes = [len(batch.degraded) for batch in batches]
    again: list[Callable[[Tensor], Tensor]] = [b.redegrade for b in batches if b.redegrade is not None]

    def redegrade(keys: Tensor) -> Tensor:
        return torch.cat([draw(own) for draw, own in zip(again, keys.split(sizes), strict=True)])

    return Batch(
        all_of([batch.clean for batch in batches]),
        torch.cat([batch.degraded for batch in batches]),
        all_of([batch.condition for batch in batches]),
        [name for batch in batches for name in batch.names],
        target=all_of([batch.target for batch in batches]),
        keys=all_of([batch.keys for batch in batches]),
        redegrade=redegrade if len(again) == len(batches) else None,
        frames=batches[0].frames,
    )
