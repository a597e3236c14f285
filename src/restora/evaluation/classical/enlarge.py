"""Enlarging by interpolation.

Enters: a small photo, float (h,w,C) on the [0,1] scale, and the scale s. Leaves: (h*s,w*s,C), not clipped.
"""

import numpy as np
import torch

from restora.evaluation.classical.denoise import Photo
from restora.image import Kernel, resize


def bicubic(small: Photo, scale: int) -> Photo:
    """MATLAB's imresize: Keys' cubic with a = -1/2."""
    return _by_matrices(small, scale, "bicubic")


def bilinear(small: Photo, scale: int) -> Photo:
    return _by_matrices(small, scale, "bilinear")


def lanczos(small: Photo, scale: int) -> Photo:
    """Windowed sinc over 6x6 pixels (Pillow's LANCZOS)."""
    from PIL import Image

    height, width, channels = small.shape
    size = (width * scale, height * scale)
    planes = [
        np.asarray(Image.fromarray(small[..., c].astype(np.float32)).resize(size, Image.Resampling.LANCZOS))
        for c in range(channels)
    ]
    return np.stack(planes, axis=-1)


def _by_matrices(small: Photo, scale: int, kernel: Kernel) -> Photo:
    x = torch.from_numpy(np.ascontiguousarray(small, dtype=np.float32)).permute(2, 0, 1)[None]
    enlarged = resize(x, x.shape[-2] * scale, x.shape[-1] * scale, kernel=kernel)
    return enlarged[0].permute(1, 2, 0).numpy()
