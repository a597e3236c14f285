"""The operator of an observation: a mask, a kernel, a scale, or the identity."""

import torch
from torch import Tensor

from restora.operators.base import Operator, check_scale
from restora.operators.blur import BlurSubsample, MirroredBlur
from restora.operators.pointwise import Identity, Mask
from restora.operators.resizing import Bicubic


def operator_of(*, mask: Tensor | None = None, kernel: Tensor | None = None, scale: int = 1) -> Operator:
    """The operator of an observation, from its parameters.

    `mask` (1,1,H,W) is 1 at known pixels, `kernel` (k,k) is the point-spread function, `scale` the factor of
    reduction: by MATLAB's bicubic, or, with a kernel, by taking every s-th pixel of the blurred photo.
    """
    check_scale(scale)
    if mask is not None and (kernel is not None or scale > 1):
        raise ValueError("a mask cannot be combined with a kernel or a scale")
    if mask is not None:
        return Mask(mask)
    if kernel is not None:
        kernel = kernel.to(torch.float32)
        return MirroredBlur(kernel) if scale == 1 else BlurSubsample(kernel, scale)
    return Bicubic(scale) if scale > 1 else Identity()
