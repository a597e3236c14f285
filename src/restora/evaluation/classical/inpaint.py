"""Filling in lost pixels.

Enters: a damaged photo, float (H,W,C) on the [0,1] scale, and a mask, bool (H,W), True where the pixel is
known. Leaves: a photo of the same shape.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from restora.evaluation.classical.denoise import Photo
from restora.image import to_bytes
from restora.networks.layers.filling import LEVELS, filled_from_around

_SWEEPS = 16
Mask = NDArray[np.bool_]


def biharmonic(damaged: Photo, known: Mask) -> Photo:
    """The solution of the biharmonic equation, a thin plate (Damelin and Hoang, 2018; scikit-image)."""
    from skimage.restoration import inpaint_biharmonic

    return np.asarray(inpaint_biharmonic(damaged, ~known, split_into_regions=True, channel_axis=-1))


def harmonic(damaged: Photo, known: Mask) -> Photo:
    """The solution of Laplace's equation, a membrane (`networks/layers/filling.py`, to about 0.001)."""
    rows, columns = (-side % 2**LEVELS for side in known.shape)
    photo = np.pad(damaged, ((0, rows), (0, columns), (0, 0)))
    mask = np.pad(known, ((0, rows), (0, columns)))
    x, given = torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(mask)[None, None]
    filled = filled_from_around(x, given.to(x.dtype), _SWEEPS)[0].permute(1, 2, 0).numpy()
    return filled[: known.shape[0], : known.shape[1]]


def navier_stokes(damaged: Photo, known: Mask) -> Photo:
    """Isophotes continued as streamlines (Bertalmio, Bertozzi and Sapiro, CVPR 2001; OpenCV, 8 bits)."""
    return _opencv(damaged, known, "INPAINT_NS")


def telea(damaged: Photo, known: Mask) -> Photo:
    """Fast marching inwards from the border (Telea, J. Graphics Tools 2004; OpenCV, 8 bits)."""
    return _opencv(damaged, known, "INPAINT_TELEA")


def _opencv(damaged: Photo, known: Mask, method: str, radius: float = 3.0) -> Photo:
    try:
        import cv2
    except ImportError as error:
        raise ValueError("navier_stokes and telea need OpenCV: pip install opencv-python-headless") from error
    pixels = to_bytes(torch.from_numpy(np.ascontiguousarray(damaged))).numpy()
    lost = (~known).astype(np.uint8)
    filled = cv2.inpaint(
        pixels.squeeze(axis=-1) if pixels.shape[2] == 1 else pixels, lost, radius, getattr(cv2, method)
    )
    return filled.reshape(pixels.shape).astype(np.float64) / 255
