"""NIQE and BRISQUE: how natural a photo looks, without its original; lower is better.

Enters: a restored photo, float (B,C,H,W) in [0,1], C = 1 or 3; the original is ignored. Leaves: (B,). NIQE
is written here and needs the parameters that its authors fitted to pristine photos, as the package basicsr
ships them; BRISQUE is the package `brisque`.

Legend: n blocks.
"""

from functools import lru_cache
from importlib.util import find_spec
from math import gamma
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restora.image import YCBCR, YCBCR_OFFSET, cubic_pieces, to_bytes
from restora.metrics.pairs import checked_photos
from restora.metrics.weights import find_weights, missing_weights

BLOCK = 96
_PARAMETERS = "niqe_pris_params.npz"
Array = NDArray[np.float64]


def niqe(restored: Tensor, clean: Tensor) -> Tensor:  # noqa: ARG001
    """NIQE of Y, blocks of 96, two scales (Mittal, Soundararajan and Bovik, SPL 2013)."""
    return torch.tensor([_niqe(_luma(photo)) for photo in checked_photos(restored)], device=restored.device)


def brisque(restored: Tensor, clean: Tensor) -> Tensor:  # noqa: ARG001
    """BRISQUE (Mittal, Moorthy and Bovik, TIP 2012), by the package of that name."""
    model = _brisque_model()
    photos = to_bytes(checked_photos(restored)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return torch.tensor([float(model.score(photo)) for photo in photos], device=restored.device)


def niqe_missing() -> str | None:
    if _parameter_file() is None:
        return missing_weights(_PARAMETERS, "the authors' parameters, which the package basicsr ships")
    return None


def brisque_missing() -> str | None:
    return None if find_spec("brisque") is not None else "needs the package brisque: pip install brisque"


def _parameter_file() -> Path | None:
    return find_weights(_PARAMETERS, package="basicsr", inside="metrics")


@lru_cache(maxsize=1)
def _brisque_model() -> Any:
    from brisque import BRISQUE

    return BRISQUE(url=False)


@lru_cache(maxsize=1)
def _pristine() -> tuple[Array, Array]:
    """Mean (36,) and covariance (36,36) of the features of pristine photos."""
    path = _parameter_file()
    assert path is not None
    with np.load(path) as stored:
        return stored["mu_pris_param"].reshape(-1), stored["cov_pris_param"]


def _luma(photo: Tensor) -> Array:
    """(C,H,W) in [0,1] -> Y of BT.601 rounded to 8 bits, (H,W) on the 8-bit scale."""
    values = photo.cpu().double().clamp(0, 1).numpy()
    if values.shape[0] == 1:
        return np.asarray(np.round(values[0] * 255))
    return np.asarray(np.round(np.tensordot(YCBCR[0], values, axes=1) + YCBCR_OFFSET[0]))


def _niqe(plane: Array) -> float:
    """Distance between the Gaussians of this photo's block features and of pristine photos' (eq. 10)."""
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    features = np.concatenate(
        [_block_features(plane, rows, columns), _block_features(_half(plane), rows, columns)], 1
    )
    kept = features[np.isfinite(features).all(axis=1)]
    if len(kept) < 2:
        return float("nan")
    mean, covariance = _pristine()
    offset = mean - np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(kept, rowvar=False)) / 2)
    return float(np.sqrt(offset @ inverse @ offset))


def _half(plane: Array) -> Array:
    """Half the size by MATLAB's antialiased bicubic: Keys' cubic over 8 pixels, borders mirrored."""
    from scipy.ndimage import correlate1d

    distance = np.abs(np.arange(-3.5, 4) / 2)
    near, far = cubic_pieces(distance)
    taps = np.where(distance <= 1, near, far)
    taps /= taps.sum()
    for axis in (0, 1):
        plane = correlate1d(plane, taps, axis=axis, mode="reflect", origin=-1)
        plane = plane[::2] if axis == 0 else plane[:, ::2]
    return plane


def _block_features(plane: Array, rows: int, columns: int) -> Array:
    """18 features of each block of the locally normalised photo, (n,18)."""
    from scipy.ndimage import correlate1d

    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    taps /= taps.sum()

    def smooth(x: Array) -> Array:
        return np.asarray(
            correlate1d(correlate1d(x, taps, axis=0, mode="nearest"), taps, axis=1, mode="nearest")
        )

    mean = smooth(plane)
    deviation = np.sqrt(np.abs(smooth(plane**2) - mean**2))
    normal = (plane - mean) / (deviation + 1)  # eq. 1
    high, wide = plane.shape[0] // rows, plane.shape[1] // columns
    blocks = normal.reshape(rows, high, columns, wide).transpose(0, 2, 1, 3).reshape(-1, high, wide)
    return np.array([_features(block) for block in blocks])


def _features(block: Array) -> list[float]:
    """Shape and scale of a block, then of its products with four neighbours (wrapped, as the authors do)."""
    shape, left, right = _fit(block)
    values = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # eq. 8
        values += [shape, mean, left, right]
    return values


def _fit(values: Array) -> tuple[float, float, float]:
    """Shape and both scales of an asymmetric generalised Gaussian, by moments (Lasmar et al., ICIP 2009)."""
    below, above = values[values < 0], values[values > 0]
    shapes, generalised = _moment_table()
    if not len(below) or not len(above):
        # the result of the authors' search for the shape in this case
        return float(shapes[0]), float("nan"), float("nan")
    left, right = np.sqrt(np.mean(below**2)), np.sqrt(np.mean(above**2))
    ratio = left / right
    moments = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(shapes[np.argmin((generalised - wanted) ** 2)])
    scale = float(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))
    return shape, float(left) * scale, float(right) * scale


@lru_cache(maxsize=1)
def _moment_table() -> tuple[Array, Array]:
    from scipy.special import gamma as gammas

    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gammas(2 / shapes) ** 2 / (gammas(1 / shapes) * gammas(3 / shapes))
