"""Classical denoising filters of the field, each with tuned parameters.

Enters: a noisy photo, float (H,W,C) on the [0,1] scale, not clipped, and the standard deviation `sigma` of
its noise on the 8-bit scale. Leaves: a photo of the same shape, not clipped.

The parameter of each filter scales with sigma by a power law. The laws were fitted at sigma 15, 25 and 50 to
crops of two sample photos of scikit-image, `astronaut` and `stereo_motorcycle`, that no benchmark of this
project scores. `strength` multiplies the parameter; `python -m restora.evaluation.classical.tuning` prints
PSNR on both sides of `strength=1`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[np.floating[Any]]
Denoiser: TypeAlias = Callable[[Photo, float], Photo]


def median(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Median per channel over a cross of 5, a square of 9 or one of 25 pixels, as sigma grows."""
    from scipy.ndimage import median_filter

    sigma = sigma * strength
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    window = cross if sigma < 20 else np.ones((3, 3)) if sigma < 35 else np.ones((5, 5))
    return np.asarray(median_filter(noisy, footprint=window[..., None], mode="reflect"))


def gaussian(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Gaussian blur."""
    from skimage.filters import gaussian as blur

    width = strength * 0.83 * (sigma / 25) ** 0.65
    return np.asarray(blur(noisy, sigma=width, mode="reflect", channel_axis=-1, preserve_range=True))


def bilateral(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Bilateral filter over 9x9 pixels, colours compared by the sum of absolute differences.

    Tomasi and Manduchi, ICCV 1998. Implemented here because scikit-image's `denoise_bilateral` (0.26) stores
    its spatial weights in rows of `win_size + 1` and reads them in rows of `win_size`, which costs 1 dB.
    """
    radius, spatial = 4, 1.7
    per_channels = 4.5 if noisy.shape[-1] == 3 else 2.4
    tolerance = strength * per_channels * (sigma / 25) ** 0.2 * sigma / 255
    height, width, _ = noisy.shape
    noisy = noisy.astype(np.float32)
    padded = np.pad(noisy, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    total = np.zeros((height, width, 1), dtype=np.float32)
    blended = np.zeros_like(noisy)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            top, left = radius + down, radius + right
            neighbour = padded[top : top + height, left : left + width]
            distance = np.abs(neighbour - noisy).sum(axis=-1, keepdims=True)
            exponent = np.square(distance / tolerance) + (down**2 + right**2) / spatial**2
            weight = np.exp(-exponent / 2)
            total += weight
            blended += weight * neighbour
    return blended / total


def total_variation(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Total variation with the channels coupled (Chambolle, JMIV 2004)."""
    from skimage.restoration import denoise_tv_chambolle

    weight = strength * 0.72 * (sigma / 25) ** 0.2 * sigma / 255
    return np.asarray(denoise_tv_chambolle(noisy, weight=weight, eps=2e-5, channel_axis=-1))


def wavelet(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """BayesShrink soft thresholds (Chang, Yu and Vetterli, TIP 2000) in Y'CbCr, averaged over 16 shifts."""
    return _of_at_least(14, noisy, lambda photo: _shrunk(photo, strength * sigma / 255))


def _shrunk(noisy: Photo, sigma: float) -> Photo:
    from skimage.restoration import denoise_wavelet

    grey = noisy.shape[-1] == 1
    squeezed = noisy[..., 0] if grey else noisy
    levels = max(1, min(4, int(np.log2(min(noisy.shape[:2]) / 8))))
    total = np.zeros_like(squeezed)
    for shift in np.ndindex(4, 4):
        smooth = denoise_wavelet(
            np.roll(squeezed, shift, axis=(0, 1)),
            sigma=sigma,
            wavelet="sym4",
            wavelet_levels=levels,
            convert2ycbcr=not grey,
            channel_axis=None if grey else -1,
            rescale_sigma=True,
        )
        total += np.roll(smooth, (-shift[0], -shift[1]), axis=(0, 1))
    return (total / 16).reshape(noisy.shape)


def nl_means(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Non-local means, 5x5 patches searched within 13x13 (Buades, Coll and Morel, CVPR 2005)."""
    from skimage.restoration import denoise_nl_means

    grey = noisy.shape[-1] == 1
    smooth = denoise_nl_means(
        noisy[..., 0] if grey else noisy,
        patch_size=5,
        patch_distance=6,
        h=strength * 0.6 * (sigma / 25) ** -0.35 * sigma / 255,
        sigma=sigma / 255,
        fast_mode=True,
        channel_axis=None if grey else -1,
    )
    return np.asarray(smooth).reshape(noisy.shape)


def wiener(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """Wiener filter with local mean and variance (Lee, PAMI 1980), over 3x3 pixels, 5x5 from sigma 20 on."""
    from scipy.signal import wiener as local_wiener

    side = 3 if sigma < 20 else 5
    variance = (strength * sigma / 255) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):  # where the local variance is 0 it takes the mean
        channels = [local_wiener(noisy[..., c], side, variance) for c in range(noisy.shape[-1])]
    return np.stack(channels, axis=-1)


def bm3d(noisy: Photo, sigma: float, *, strength: float = 1.0) -> Photo:
    """BM3D (Dabov et al., TIP 2007), for colour its RGB form; the authors' package, non-commercial."""
    try:
        import bm3d as package
    except ImportError as error:
        raise ValueError("classical=bm3d needs the package bm3d: pip install 'restora[classical]'") from error
    level = strength * sigma / 255

    def denoised(photo: Photo) -> Photo:
        if photo.shape[-1] == 3 and _has_colours(photo):
            return np.asarray(package.bm3d_rgb(photo, level))
        return np.stack([package.bm3d(photo[..., c], level) for c in range(photo.shape[-1])], axis=-1)

    return _of_at_least(16, noisy, denoised)  # the package refuses sides below 8, and crashes at 8x8


def _has_colours(photo: Photo) -> bool:
    """Whether the three opponent planes vary: the package divides each by its range, 0 in a grey photo."""
    opponents = photo @ np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]])
    return bool((np.ptp(opponents, axis=(0, 1)) > 1e-9).all())


def _of_at_least(side: int, noisy: Photo, restore: Callable[[Photo], Photo]) -> Photo:
    """Applies `restore` to a photo whose sides below `side` pixels are continued by mirroring."""
    height, width, _ = noisy.shape
    missing = (max(0, side - height), max(0, side - width))
    if not any(missing):
        return restore(noisy)
    padded = np.pad(noisy, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    return restore(padded)[:height, :width]
