"""`python -m restora.evaluation.classical.tuning [sigma …]`: is the parameter of every filter the best?

Prints the mean PSNR of crops of scikit-image's `astronaut` and `stereo_motorcycle` with each filter's
parameter decreased and increased. Held-out photos and test sets are not used.
"""

import sys

import numpy as np
from skimage import data

from restora.evaluation.classical import BASELINES
from restora.evaluation.classical.denoise import Denoiser, Photo

STRENGTHS = (0.7, 0.85, 1.0, 1.2, 1.4)


def tuning_photos(side: int = 256) -> list[Photo]:
    """Two crops, float (side,side,3) in [0,1]."""
    photos = (data.astronaut(), data.stereo_motorcycle()[0])
    corners = ((40, 120), (150, 250))
    return [
        photo[top : top + side, left : left + side] / 255.0
        for photo, (top, left) in zip(photos, corners, strict=True)
    ]


def tuned_psnr(denoise: Denoiser, sigma: float, photos: list[Photo], strength: float) -> float:
    """Mean PSNR in dB of the photos under white noise of sigma (8-bit scale), denoised and clipped."""
    scores = []
    for seed, clean in enumerate(photos):
        noisy = clean + np.random.default_rng(seed).normal(0, sigma / 255, clean.shape)
        restored = denoise(noisy, sigma, strength=strength)  # type: ignore[call-arg]
        scores.append(-10 * np.log10(np.mean((np.clip(restored, 0, 1) - clean) ** 2)))
    return float(np.mean(scores))


def main(argv: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    photos = tuning_photos()
    for sigma in [float(text) for text in argv] or [15.0, 25.0, 50.0]:
        table = Table(title=f"sigma {sigma:g}: PSNR in dB by strength")
        for heading in ("filter", *(f"{strength:g}" for strength in STRENGTHS)):
            table.add_column(heading, justify="right")
        for name, denoise in BASELINES.items():
            scores = [tuned_psnr(denoise, sigma, photos, strength) for strength in STRENGTHS]
            table.add_row(name, *(f"{score:.2f}" for score in scores))
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
