"""The check that all metrics begin with: photos on another scale give a number too, and a wrong one.

Legend: B photos, C channels, H height, W width.
"""

import torch
from torch import Tensor

from restora.image import check_layout, check_scale


def checked_pair(restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both, in float32 at least. Raises ValueError unless they are float (B,C,H,W) in [0,1] of one shape."""
    restored, clean = checked_photos(restored), checked_photos(clean)
    if restored.shape != clean.shape:
        raise ValueError(
            f"expected two tensors (B,C,H,W) of one shape, got restored {tuple(restored.shape)} "
            f"and clean {tuple(clean.shape)}"
        )
    kind = torch.promote_types(torch.promote_types(restored.dtype, clean.dtype), torch.float32)
    return restored.to(kind), clean.to(kind)


def checked_photos(photos: Tensor) -> Tensor:
    """The photos. Raises ValueError unless they are float (B,C,H,W) on the [0,1] scale."""
    check_layout(photos)
    check_scale(photos.detach())
    return photos
