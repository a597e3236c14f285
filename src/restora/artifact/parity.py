"""Does an exported file compute what the checkpoint computes? Measured on real photos, at several sizes.

Note: the loss of a file in dB is measured where the clean photo is known. Elsewhere it is the loss that the
difference would cause at 40 dB, which few photos reach.

Legend: B photos, C channels, K condition channels, H height, W width, s scale.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restora.degradations.base import Degradation
from restora.degradations.frames import degrade_frames, frame_keys
from restora.keyed import KeyedGenerator, image_key
from restora.networks.base import Network
from restora.photos.reading import list_photos, read_photo

TOLERANCE = 1e-4
"""Largest absolute difference on the [0,1] scale that still counts as the same model: a fortieth of an 8-bit
step."""
LARGEST_SIDE = 256
PHOTOS_AT_MOST = 3
ODD_SIZE = (97, 131)
SPEED = 2
"""Pixels by which photos move from frame to frame, down and to the right, for networks that take several."""
USUAL_ERROR = 1e-4
"""Mean squared error of a photo of 40 dB."""

Compute = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Sample:
    """Real photos, float32 (B,C,H,W) in [0,1], and the condition (B,K,H,W) that the network gets, if any.

    `clean` (B,C',H*s,W*s) are the photos before degradation, if known.
    """

    name: str
    x: Tensor
    condition: Tensor | None
    clean: Tensor | None = None


@dataclass(frozen=True)
class Difference:
    """The differences of outputs from those of the checkpoint.

    `largest` is that of a pixel on the [0,1] scale, `loss` the largest change of a photo's PSNR in dB, `psnr`
    the mean PSNR, where clean photos are known.
    """

    largest: float
    loss: float
    psnr: float | None


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


def read_samples(
    paths: Sequence[Path], network: Network, degradation: Degradation | None = None
) -> list[Sample]:
    """The middle of each photo, at most 256x256, with the network's channels; it moves if these are frames.

    NAME_degraded of a run has NAME_clean beside it. Sample photos are degraded as in the model's training,
    and so are those of a run for a conditioned network. The last sample is an odd-sized pair of the first.
    """
    samples = [_sample(path, network, degradation) for path in paths]
    first = samples[0]
    height, width = (min(n, limit) for n, limit in zip(first.x.shape[2:], ODD_SIZE, strict=True))
    odd = _middle(first.x, height - 1 | 1, width - 1 | 1)
    x = torch.cat([odd, odd.flip(-1)])
    return [*samples, Sample(first.name, x, _ramp(x, network))]


def _sample(path: Path, network: Network, degradation: Degradation | None) -> Sample:
    """One photo; without a clean one, it is restored as it is."""
    clean_path = path.with_name(path.name.replace("_degraded.", "_clean."))
    is_kept = clean_path != path and clean_path.is_file()
    if degradation is not None and (path in sample_photos() or (is_kept and network.condition_channels)):
        clean = _middle(_read(clean_path, network.out_channels), *[LARGEST_SIDE * network.scale] * 2)
        made = _degraded(clean, path.name, network, degradation)
        if made is not None:
            return made
    x = _middle(_read(path, network.frame_channels), LARGEST_SIDE, LARGEST_SIDE)
    x = _moving(x, network.frames).flatten(1, 2)
    clean_here = None
    if is_kept and not network.condition_channels:
        whole, scale = _read(clean_path, network.out_channels), network.scale
        clean_here = _middle(whole, x.shape[2] * scale, x.shape[3] * scale)
        if clean_here.shape[2:] != (x.shape[2] * scale, x.shape[3] * scale):
            clean_here = None
    return Sample(path.name, x, _ramp(x, network), clean_here)


def _degraded(clean: Tensor, name: str, network: Network, degradation: Degradation) -> Sample | None:
    """The photo degraded as in the model's training; None if the network does not take the result."""
    clean = clean[..., : clean.shape[2] // network.scale * network.scale, :]
    clean = clean[..., : clean.shape[3] // network.scale * network.scale].contiguous()
    keys = torch.tensor([image_key(name)])
    if network.frames > 1:
        clips = _moving(clean, network.frames)
        x, condition = degrade_frames(degradation, clips, frame_keys(keys, network.frames))
    else:
        x, condition = degradation(clean, KeyedGenerator(keys))
    maps = 0 if condition is None else condition.shape[1]
    scaled = clean.shape[2] == x.shape[2] * network.scale
    if x.shape[1] != network.in_channels or maps < network.condition_channels or not scaled:
        return None
    return Sample(name, x, condition if network.condition_channels else None, clean)


def _read(path: Path, channels: int) -> Tensor:
    pixels = read_photo(path, "gray" if channels == 1 else "rgb").astype(np.float32) / 255
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    # a network of neither one nor three channels gets the photo's planes in turn
    return planes[:, [index % planes.shape[1] for index in range(channels)]].contiguous()


def _moving(photo: Tensor, frames: int) -> Tensor:
    """(1,C,H,W) -> (1,T,C,H,W): shifted from frame to frame, the middle one as it is, borders repeated."""
    shifted = []
    for time in range(-(frames // 2), frames // 2 + 1):
        rows, columns = ((torch.arange(side) - SPEED * time).clamp_(0, side - 1) for side in photo.shape[2:])
        shifted.append(photo[:, :, rows][..., columns])
    return torch.stack(shifted, dim=1)


def _middle(x: Tensor, height: int, width: int) -> Tensor:
    top, left = max(0, x.shape[2] - height) // 2, max(0, x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width].contiguous()


def _ramp(x: Tensor, network: Network) -> Tensor | None:
    """Noise levels from 0 to 50/255 from left to right, which reveal a graph that ignores the map."""
    if not network.condition_channels:
        return None
    ramp = torch.linspace(0, 50 / 255, x.shape[3])
    return ramp.expand(x.shape[0], network.condition_channels, *x.shape[2:]).contiguous()


@torch.no_grad()
def outputs(compute: Compute, samples: Iterable[Sample]) -> list[Tensor]:
    """The outputs of a network for each sample, neither clamped nor rounded."""
    return [compute(sample.x, sample.condition) for sample in samples]


def compare(reference: Sequence[Tensor], others: Sequence[Tensor], samples: Sequence[Sample]) -> Difference:
    """The differences of `others` from `reference`, the outputs for `samples`.

    They are infinite where either has a number that is not finite.
    """
    largest, loss, figures = 0.0, 0.0, []
    for first, second, sample in zip(reference, others, samples, strict=True):
        if first.shape != second.shape:
            raise ValueError(
                f"outputs differ in shape on {sample.name}: {tuple(first.shape)}, {tuple(second.shape)}"
            )
        largest = max(largest, _or_infinite(float((first - second).abs().max())))
        one, two = first.clamp(0, 1), second.clamp(0, 1)
        if sample.clean is None:
            lost = 10 * math.log10(1 + float((one - two).square().mean()) / USUAL_ERROR)
        else:
            figures.append(_psnr(two, sample.clean))
            lost = abs(_psnr(one, sample.clean) - figures[-1])
        loss = max(loss, _or_infinite(lost))
    return Difference(largest, loss, float(np.mean(figures)) if figures else None)


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _psnr(restored: Tensor, clean: Tensor) -> float:
    """PSNR in dB, on the [0,1] scale, not rounded to 8 bits."""
    return -10 * math.log10(max(float((restored - clean).square().mean()), 1e-12))


def described(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """The samples as model.json lists them."""
    return [
        {"name": sample.name, "count": len(sample.x), "height": sample.x.shape[2], "width": sample.x.shape[3]}
        for sample in samples
    ]
