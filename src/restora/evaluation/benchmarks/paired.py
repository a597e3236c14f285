"""Real pairs: a folder of degraded photos and a folder of clean ones (SIDD, GoPro, rain and haze sets)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from restora.data.packing import PhotoFile, fits
from restora.data.pairs import PairBy, pair_up
from restora.data.sources import named
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, check_photos
from restora.evaluation.testsets import find_photos
from restora.image import luminance_plane, resize
from restora.photos.reading import photo_size, read_photo
from restora.registry import register


@register("benchmark", "paired")
@dataclass(frozen=True, kw_only=True)
class Paired(Benchmark):
    """`degraded_root` against `root`, photo by photo.

    Photos are paired as in training, by name or `pair_by` order; `degraded_suffix` is what degraded names
    append to the clean name.
    """

    task: ClassVar[str] = "restore"

    degraded_root: str
    pair_by: PairBy = "name"
    degraded_suffix: str | None = None

    @cached_property
    def pairs(self) -> list[PhotoFile]:
        """In the order of the clean photos. Raises ValueError that names photos without a partner."""
        halves = (
            find_photos(self.root, self.testset),
            find_photos(self.degraded_root, key="benchmark.degraded_root"),
        )
        clean, degraded = (named(paths[0].parent, paths) for paths in halves)
        pairs = pair_up(clean, degraded, by=self.pair_by, suffix=self.degraded_suffix, settings="benchmark")
        return sorted(pairs, key=lambda pair: pair.paths)[: self.limit]

    @cached_property
    def photos(self) -> list[Path]:
        return [pair.clean for pair in self.pairs]

    @cached_property
    def names(self) -> list[str]:
        """Those of the clean photos, where each has one degraded partner."""
        names = super().names
        return names if len(set(names)) == len(names) else [pair.name for pair in self.pairs]

    @property
    def partners(self) -> list[Path]:
        """The degraded photo of each clean one."""
        return [pair.paths[1] for pair in self.pairs]

    def check(self) -> None:
        super().check()
        check_photos(self.partners, "benchmark.degraded_root")
        for pair in self.pairs:
            self._scale(pair, photo_size(pair.paths[0]), photo_size(pair.paths[1]))

    def _scale(self, pair: PhotoFile, large: tuple[int, int], small: tuple[int, int]) -> int:
        """How many times larger the clean photo is; sides (H,W). Raises ValueError if it is no integer."""
        scale = round(large[0] / small[0])
        if scale < 1 or not fits(large, small, scale):
            raise ValueError(
                f"{pair.paths[1]} is {small[1]}x{small[0]}, its clean photo {pair.paths[0]} "
                f"{large[1]}x{large[0]}: the sizes must agree up to a whole factor"
            )
        return scale

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        planes = self.planes(intake)
        pixels = read_photo(self.partners[index], "gray" if planes == "gray" else "rgb")
        photo = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
        degraded = luminance_plane(photo) if planes == "y" else photo
        height, width = clean.shape[-2:]
        scale = self._scale(self.pairs[index], (height, width), (degraded.shape[-2], degraded.shape[-1]))
        if intake.scale not in (None, scale):
            raise ValueError(
                f"the network enlarges {intake.scale} times, the pairs {scale} times: they must agree"
            )
        height, width = height // scale, width // scale  # a remainder may have been cut off or rounded up
        clean, degraded = clean[..., : height * scale, : width * scale], degraded[..., :height, :width]
        baseline = degraded if scale == 1 else resize(degraded, *clean.shape[-2:])
        return Observation(
            name=self.names[index], degraded=degraded, clean=clean, baseline=baseline, scale=scale
        )
