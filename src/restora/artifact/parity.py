"""Does a model folder compute what the checkpoint computes? Measured on real photos, at several sizes.

Legend: B photos, C channels, K condition channels, H height, W width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restora.networks.base import Network
from restora.photos.reading import list_photos, read_photo

TOLERANCE = 1e-4
"""Largest absolute difference on the [0,1] scale that still counts as the same model: a fortieth of an 8-bit
step."""
LARGEST_SIDE = 256
PHOTOS_AT_MOST = 3
ODD_SIZE = (97, 131)

Compute = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Sample:
    """Real photos, float32 (B,C,H,W) in [0,1], and the condition (B,K,H,W) that the network gets, if any."""

    name: str
    x: Tensor
    condition: Tensor | None


def sample_photos() -> list[Path]:
    """Natural colour photos that the scikit-image package ships."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    found = [folder / name for name in ("astronaut.png", "chelsea.png", "coffee.png")]
    return [path for path in found if path.is_file()]


def photo_files(folder_or_file: Path) -> list[Path]:
    """The photos of a folder, sorted, or the one file itself. Raises ValueError where there are none."""
    if folder_or_file.is_file():
        return [folder_or_file]
    found = list_photos(folder_or_file)
    if not found:
        raise ValueError(f"there are no photos in {folder_or_file}: name one, or a folder of them")
    return found


def degraded_photos_of(run: Path | None) -> list[Path]:
    """The degraded held-out photos that a run keeps; empty where it keeps none."""
    return [] if run is None else sorted((run / "images").glob("*_degraded.png"))


def read_samples(paths: Iterable[Path], network: Network) -> list[Sample]:
    """The middle of each photo, at most 256x256, with the network's channels.

    An odd-sized pair of one of them comes after.
    """
    samples: list[Sample] = []
    for path in list(paths)[:PHOTOS_AT_MOST]:
        x = _read(path, network.in_channels)
        samples.append(_sample(path.name, _middle(x, LARGEST_SIDE, LARGEST_SIDE), network))
    first = samples[0]
    height, width = (min(n, limit) for n, limit in zip(first.x.shape[2:], ODD_SIZE, strict=True))
    odd = _middle(first.x, height - 1 | 1, width - 1 | 1)
    samples.append(_sample(first.name, torch.cat([odd, odd.flip(-1)]), network))
    return samples


def _read(path: Path, channels: int) -> Tensor:
    pixels = read_photo(path, "gray" if channels == 1 else "rgb").astype(np.float32) / 255
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    # a network of neither one nor three channels sees the photo's planes in turn
    return planes[:, [index % planes.shape[1] for index in range(channels)]].contiguous()


def _middle(x: Tensor, height: int, width: int) -> Tensor:
    top, left = max(0, x.shape[2] - height) // 2, max(0, x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width].contiguous()


def _sample(name: str, x: Tensor, network: Network) -> Sample:
    condition = None
    if network.condition_channels:
        # noise levels from 0 to 50/255 from left to right, so that a graph which ignores the map is found out
        ramp = torch.linspace(0, 50 / 255, x.shape[3])
        condition = ramp.expand(x.shape[0], network.condition_channels, *x.shape[2:]).contiguous()
    return Sample(name, x, condition)


@torch.no_grad()
def largest_difference(one: Compute, other: Compute, samples: Iterable[Sample]) -> float:
    """max |one(x) - other(x)| over all samples and pixels.

    Infinite where either gives a number that is not finite.
    """
    worst = 0.0
    for sample in samples:
        first, second = one(sample.x, sample.condition), other(sample.x, sample.condition)
        if first.shape != second.shape:
            raise ValueError(
                f"outputs differ in shape on {sample.name}: {tuple(first.shape)}, {tuple(second.shape)}"
            )
        difference = float((first - second).abs().max())
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst


def described(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """The samples as model.json lists them."""
    return [
        {"name": sample.name, "count": len(sample.x), "height": sample.x.shape[2], "width": sample.x.shape[3]}
        for sample in samples
    ]
