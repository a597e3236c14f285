"""All metrics by name, and why one cannot be computed here.

Each takes a restored photo and its original, float (B,C,H,W) on the [0,1] scale, C = 1 or 3, and gives
(B,). Metrics that need pretrained weights name a missing file and the folders that are searched for it;
nothing is downloaded.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from restora.metrics import color, image, natural, perceptual


@dataclass(frozen=True)
class Metric:
    """`missing` gives the reason why it cannot be computed here, None where it can.

    `of_luminance`: whether it has a meaning for Y alone, which is from 16 to 235; `of_blocks`: whether
    `compute` takes the `border` that was cut off, because it looks at the blocks of a JPEG.
    """

    compute: Callable[..., Tensor]
    higher_is_better: bool
    smallest_side: int = 1
    needs_reference: bool = True
    missing: Callable[[], str | None] = lambda: None
    of_luminance: bool = True
    of_blocks: bool = False


METRICS: dict[str, Metric] = {
    "psnr": Metric(image.psnr, higher_is_better=True),
    "ssim": Metric(image.ssim, higher_is_better=True, smallest_side=image.WINDOW),
    "ms_ssim": Metric(image.ms_ssim, higher_is_better=True, smallest_side=image.MS_SIDE),
    "psnr_b": Metric(image.psnr_b, higher_is_better=True, smallest_side=9, of_blocks=True),
    "delta_e": Metric(color.delta_e, higher_is_better=False, of_luminance=False),
    "lpips": Metric(perceptual.lpips, False, 64, missing=perceptual.lpips_missing, of_luminance=False),
    "dists": Metric(perceptual.dists, False, 64, missing=perceptual.dists_missing, of_luminance=False),
    "niqe": Metric(natural.niqe, False, 2 * natural.BLOCK, False, natural.niqe_missing),
    "brisque": Metric(natural.brisque, False, 64, False, natural.brisque_missing),
}


def unavailable(name: str) -> str | None:
    """Why the metric cannot be computed here; None where it can. Raises ValueError for an unknown name."""
    if name not in METRICS:
        raise ValueError(f"metrics: there is no metric {name!r}: use some of {', '.join(METRICS)}")
    return METRICS[name].missing()
