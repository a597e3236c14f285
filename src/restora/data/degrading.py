"""What becomes of a batch on the device: bytes to floats, and these degraded.

Legend: B samples, T frames, C channels, H height, W width.
"""

import torch
from torch import Tensor

from restora.data.clips import View
from restora.data.replayed import Made
from restora.degradations.base import Degradation
from restora.degradations.frames import degrade_frames
from restora.keyed import KeyedGenerator


def made(
    degradation: Degradation, noisy: bool, photos: Tensor, keys: Tensor, *, view: View | None = None
) -> Made:
    """Clean and degraded photos, condition and, if `noisy`, the target.

    `photos` are uint8 (B,C,H,W), `keys` int64 (B,). With a `view` they are clips: the degraded photo is
    (B,T·C,H,W), all others are of the middle frame.
    """
    clean = to_float(photos)
    if view is None:
        image, condition = degradation(clean, KeyedGenerator(keys))
    else:
        clips, of_frames = view(clean, keys)  # (B,T,C,H,W), (B,T)
        image, condition = degrade_frames(degradation, clips, of_frames)
        clean = clips[:, view.frames // 2].contiguous()
    target = degradation(clean, KeyedGenerator(keys).fork("target")).image if noisy else None
    return clean, image, condition, target


def to_float(photos: Tensor) -> Tensor:
    """uint8 -> float32 in [0,1], in contiguous memory, which degradations may rely on."""
    return photos.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
