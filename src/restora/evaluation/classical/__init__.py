"""Classical baselines, in the same table as the networks.

`BASELINES` are the denoising filters that need nothing beyond restora's own requirements and a second or so
per photo: name -> `restore(noisy, sigma)` on float (H,W,C) photos of the [0,1] scale, sigma on the 8-bit
scale.
"""

from restora.evaluation.classical.denoise import (
    Denoiser,
    bilateral,
    gaussian,
    median,
    nl_means,
    total_variation,
    wavelet,
)

BASELINES: dict[str, Denoiser] = {
    "median": median,
    "gaussian": gaussian,
    "bilateral": bilateral,
    "total_variation": total_variation,
    "wavelet": wavelet,
    "nl_means": nl_means,
}

__all__ = ["BASELINES"]
