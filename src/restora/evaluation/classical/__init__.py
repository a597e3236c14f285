"""Classical baselines, in the same table as the networks.

`BASELINES` are the denoising filters that need nothing beyond restora's own requirements and about a second
per photo: name -> `restore(noisy, sigma)` on float (H,W,C) photos of the [0,1] scale, sigma on the 8-bit
scale. `METHODS` has all methods by task; each takes a photo and what a classical method may know of it
(`Known`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from restora.evaluation.classical import deblur, denoise, enlarge, inpaint
from restora.evaluation.classical.denoise import Denoiser, Photo
from restora.image import estimated_sigma

BASELINES: dict[str, Denoiser] = {
    "median": denoise.median,
    "gaussian": denoise.gaussian,
    "bilateral": denoise.bilateral,
    "total_variation": denoise.total_variation,
    "wavelet": denoise.wavelet,
    "nl_means": denoise.nl_means,
}
DENOISERS: dict[str, Denoiser] = BASELINES | {"wiener": denoise.wiener, "bm3d": denoise.bm3d}


@dataclass(frozen=True)
class Known:
    """What a classical method knows of a degraded photo; None where it does not apply."""

    sigma: float | None = None
    """Standard deviation of the noise on the 8-bit scale."""
    quality: int | None = None
    """JPEG quality."""
    kernel: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    """(H,W), True where the pixel is known."""
    scale: int = 1


Method: TypeAlias = Callable[[Photo, Known], Photo]


def jpeg_sigma(quality: int) -> float:
    """The noise level (8-bit scale) at which the denoisers work best on JPEG of this quality.

    Fitted at qualities 10 to 80 to the photos that the denoisers were tuned on.
    """
    return 10.0 * float(10 / quality) ** 0.45


def _denoise(photo: Photo, known: Known, *, method: Denoiser) -> Photo:
    """Denoises at the known noise level, else at an equivalent (JPEG) or an estimated one."""
    if known.sigma is not None:
        sigma = known.sigma
    else:
        sigma = jpeg_sigma(known.quality) if known.quality is not None else estimated_sigma(photo)
    return method(photo, sigma) if sigma > 0 else photo


def _deconvolve(
    photo: Photo, known: Known, *, method: Callable[[Photo, deblur.Kernel, float], Photo]
) -> Photo:
    assert known.kernel is not None
    assert known.sigma is not None
    return method(photo, known.kernel, known.sigma)


def _sharpen(photo: Photo, known: Known) -> Photo:
    """Denoising and sharpening, against blur of an unknown kernel."""
    return deblur.sharpened(_denoise(photo, known, method=denoise.wavelet))


def _inpaint(photo: Photo, known: Known, *, method: Callable[[Photo, inpaint.Mask], Photo]) -> Photo:
    assert known.mask is not None
    return method(photo, known.mask)


def _enlarge(photo: Photo, known: Known, *, method: Callable[[Photo, int], Photo]) -> Photo:
    return method(photo, known.scale)


_AS_DENOISERS: dict[str, Method] = {name: partial(_denoise, method=f) for name, f in DENOISERS.items()}
METHODS: dict[str, dict[str, Method]] = {
    "denoise": _AS_DENOISERS,
    "jpeg": _AS_DENOISERS,
    "restore": _AS_DENOISERS | {"sharpened_wavelet": _sharpen},
    "deblur": {
        "inverse_filter": partial(_deconvolve, method=deblur.inverse_filter),
        "wiener_deconvolution": partial(_deconvolve, method=deblur.wiener_deconvolution),
        "unsupervised_wiener": partial(_deconvolve, method=deblur.unsupervised_wiener),
        "richardson_lucy": partial(_deconvolve, method=deblur.richardson_lucy),
    },
    "inpaint": {
        "biharmonic": partial(_inpaint, method=inpaint.biharmonic),
        "harmonic": partial(_inpaint, method=inpaint.harmonic),
        "navier_stokes": partial(_inpaint, method=inpaint.navier_stokes),
        "telea": partial(_inpaint, method=inpaint.telea),
    },
    "super_resolution": {
        "bicubic": partial(_enlarge, method=enlarge.bicubic),
        "bilinear": partial(_enlarge, method=enlarge.bilinear),
        "lanczos": partial(_enlarge, method=enlarge.lanczos),
    },
}
"""Task of a benchmark -> name -> method."""

_PACKAGES = {"bm3d": ("bm3d", "'restora[classical]'")} | dict.fromkeys(
    ("navier_stokes", "telea"), ("cv2", "opencv-python-headless")
)


def unavailable(name: str) -> str | None:
    """Why the method cannot be computed here; None where it can."""
    package, install = _PACKAGES.get(name, ("numpy", ""))
    return None if find_spec(package) is not None else f"needs the package {package}: pip install {install}"


__all__ = ["BASELINES", "METHODS", "Known", "Method", "unavailable"]
