"""What becomes of a batch on the device: bytes to floats, and these degraded.

Legend: B samples, C channels, H height, W width.
"""

import torch
from torch import Tensor

from restora.data.replayed import Made
from restora.degradations.base import Degradation
from restora.keyed import KeyedGenerator


def made(degradation: Degradation, noisy: bool, photos: Tensor, keys: Tensor) -> Made:
    """Clean and degraded photos, condition and, if `noisy`, the target.

    `photos` are uint8 (B,C,H,W), `keys` int64 (B,).
    """
    clean = to_float(photos)
    image, condition = degradation(clean, KeyedGenerator(keys))
    target = degradation(clean, KeyedGenerator(keys).fork("target")).image if noisy else None
    return clean, image, condition, target


def to_float(photos: Tensor) -> Tensor:
    """uint8 -> float32 in [0,1], in contiguous memory, which degradations may rely on."""
    return photos.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
