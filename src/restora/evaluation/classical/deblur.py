"""Deconvolution with a known kernel, and sharpening without one.

Enters: a blurred photo, float (H,W,C) on the [0,1] scale with white noise of `sigma` (8-bit scale), and the
kernel, float (k,k), k odd, that sums to one. Leaves: a photo of the same shape, not clipped.

The Fourier methods assume that a photo is periodic. They get it with the margins of `operators.blur`, so that
no seam causes ringing in the result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restora.evaluation.classical.denoise import Photo
from restora.operators.blur import edge_margins, transfer_function

Kernel = NDArray[np.floating[Any]]


def inverse_filter(blurred: Photo, kernel: Kernel, sigma: float, *, strength: float = 1.0) -> Photo:
    """Division by the transfer function where it exceeds a threshold that grows with the noise, else zero.

    This is the truncated inverse filter; the result lacks the frequencies that it cuts off.
    """
    threshold = strength * 0.06 * max(sigma, 0.05) ** 0.5

    def divide(plane: Photo) -> Photo:
        transfer = transfer_function(torch.from_numpy(kernel).double(), *plane.shape).numpy()
        inverse = np.zeros_like(transfer)
        np.divide(1, transfer, out=inverse, where=np.abs(transfer) > threshold)
        return np.fft.irfft2(np.fft.rfft2(plane) * inverse, s=plane.shape)

    return _per_channel(blurred, kernel, divide)


def wiener_deconvolution(blurred: Photo, kernel: Kernel, sigma: float, *, strength: float = 1.0) -> Photo:
    """Wiener deconvolution with a Laplacian prior (scikit-image's `wiener`)."""
    from skimage.restoration import wiener

    balance = strength * 0.003 * max(sigma, 0.05) ** 1.3
    return _per_channel(blurred, kernel, lambda plane: wiener(plane, kernel, balance, clip=False))


def unsupervised_wiener(
    blurred: Photo,
    kernel: Kernel,
    sigma: float,  # noqa: ARG001
) -> Photo:
    """Wiener deconvolution that estimates noise and prior by Gibbs sampling (Orieux et al., JOSA A 2010).

    It ignores `sigma`; its sampler is seeded, so that a photo has one result.
    """
    from skimage.restoration import unsupervised_wiener as sample

    return _per_channel(blurred, kernel, lambda plane: sample(plane, kernel, clip=False, rng=0)[0])


def richardson_lucy(blurred: Photo, kernel: Kernel, sigma: float, *, strength: float = 1.0) -> Photo:
    """Richardson-Lucy, stopped earlier for more noise, which further iterations would amplify."""
    from skimage.restoration import richardson_lucy as iterate

    iterations = max(1, round(strength * 80 / max(sigma, 0.3) ** 0.8))
    margin = 4 * kernel.shape[0]
    padded = np.pad(blurred, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric").clip(1e-3, None)
    restored = [
        iterate(padded[..., c], kernel, num_iter=iterations, clip=False) for c in range(blurred.shape[-1])
    ]
    return np.stack(restored, axis=-1)[margin:-margin, margin:-margin]


def sharpened(blurred: Photo, *, radius: float = 1.5, amount: float = 0.6) -> Photo:
    """An unsharp mask: adds `amount` of the detail that a Gaussian of `radius` pixels removes.

    The defaults are the best of 1 to 3 pixels and 0.3 to 1 for `kodak24_blurred` after wavelet denoising.
    """
    from scipy.ndimage import gaussian_filter

    return blurred + amount * (blurred - gaussian_filter(blurred, (radius, radius, 0)))


def _per_channel(photo: Photo, kernel: Kernel, restore: Callable[[Photo], Photo]) -> Photo:
    """Applies `restore` to each channel with margins, which are cut off again."""
    height, width, _ = photo.shape
    planes = torch.tensor(photo, dtype=torch.float64).permute(2, 0, 1)[None]  # (1,C,H,W)
    padded = edge_margins(planes, torch.from_numpy(kernel))[0].numpy()
    margin = (padded.shape[-1] - width) // 2
    inside = (slice(margin, margin + height), slice(margin, margin + width))
    return np.stack([restore(plane)[inside] for plane in padded], axis=-1)
