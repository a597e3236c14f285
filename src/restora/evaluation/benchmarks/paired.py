"""Real pairs: a folder of degraded photos and a folder of clean ones (SIDD, GoPro, rain and haze sets)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, check_photos
from restora.evaluation.testsets import find_photos, photo_names
from restora.image import luminance_plane, resize
from restora.photos.reading import read_photo
from restora.registry import register


@register("benchmark", "paired")
@dataclass(frozen=True, kw_only=True)
class Paired(Benchmark):
    """`degraded_root` against `root`, photo by photo: paired by name, or by order where the counts agree."""

    task: ClassVar[str] = "restore"

    degraded_root: str

    @cached_property
    def partners(self) -> list[Path]:
        """The degraded photo of each clean one. Raises ValueError when they cannot be paired."""
        clean = find_photos(self.root, self.testset)
        degraded = find_photos(self.degraded_root)
        by_name = dict(zip(photo_names(degraded), degraded, strict=True))
        names = photo_names(clean)
        if all(name in by_name for name in names):
            return [by_name[name] for name in self.names]
        if len(clean) == len(degraded):
            return degraded[: self.limit]
        missing = next(name for name in names if name not in by_name)
        raise ValueError(
            f"{self.root} holds {len(clean)} photos, {self.degraded_root} {len(degraded)}, and {missing} is "
            "not among the latter: give the two photos of a pair the same name"
        )

    def check(self) -> None:
        super().check()
        check_photos(self.partners, "benchmark.degraded_root")

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:
        planes = self.planes(intake)
        pixels = read_photo(self.partners[index], "gray" if planes == "gray" else "rgb")
        photo = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
        degraded = luminance_plane(photo) if planes == "y" else photo
        height, width = clean.shape[-2:]
        scale = round(height / degraded.shape[-2])
        if scale < 1 or tuple(degraded.shape[-2:]) != (height // scale, width // scale):
            raise ValueError(
                f"{self.partners[index]} is {degraded.shape[-2]}x{degraded.shape[-1]}, its clean photo "
                f"{self.photos[index]} {height}x{width}: the sizes must agree up to a whole factor"
            )
        if intake.scale not in (None, scale):
            raise ValueError(
                f"the network enlarges {intake.scale} times, the pairs {scale} times: they must agree"
            )
        clean = clean[..., : height // scale * scale, : width // scale * scale]
        baseline = degraded if scale == 1 else resize(degraded, *clean.shape[-2:])
        return Observation(
            name=self.names[index], degraded=degraded, clean=clean, baseline=baseline, scale=scale
        )
