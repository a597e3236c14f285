"""Removal of JPEG artefacts; the photos are compressed by libjpeg itself, through Pillow."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restora.degradations.parameters import as_whole_range
from restora.evaluation.benchmarks.base import Benchmark, Intake, Observation, whole_at_random
from restora.image import to_bytes
from restora.registry import register

Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]


@register("benchmark", "jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(Benchmark):
    """Baseline JPEG at `quality` (1 to 100), or at one quality per photo drawn from a range [low, high].

    One plane (color=gray, or y for a network of one channel) is compressed as a grey JPEG, as AR-CNN and
    DnCNN-3 do; colour with the chroma `subsampling` that libjpeg defaults to.
    """

    task: ClassVar[str] = "jpeg"
    severity: ClassVar[str | None] = "quality"

    quality: int | Sequence[int]
    subsampling: Subsampling = "4:2:0"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        as_whole_range("benchmark.quality", self.quality, least=1, most=100)
        if self.subsampling not in get_args(Subsampling):
            choice = ", ".join(get_args(Subsampling))
            raise ValueError(f"benchmark.subsampling is one of {choice}, got {self.subsampling!r}")

    def degrade(self, clean: Tensor, index: int, intake: Intake) -> Observation:  # noqa: ARG002
        low, high = as_whole_range("benchmark.quality", self.quality, least=1, most=100)
        quality = whole_at_random(self.seed, index, low, high)
        compressed = libjpeg(clean, quality, self.subsampling)
        return Observation(
            name=self.names[index],
            degraded=compressed,
            clean=clean,
            baseline=compressed,
            quality=quality,
            facts={"quality": quality},
        )


def libjpeg(photo: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """A photo (1,C,H,W) in [0,1], C = 1 or 3, encoded and decoded."""
    pixels = to_bytes(photo[0]).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    decoded = np.array(Image.open(buffer)).reshape(pixels.shape)
    return torch.from_numpy(decoded).permute(2, 0, 1)[None].float() / 255
