"""The operator that an observation carries: a mask, a kernel, a scale, or nothing."""

import torch
from torch import Tensor

from restora.operators.base import Operator
from restora.operators.blur import BlurSubsample, MirroredBlur
from restora.operators.pointwise import Identity, Mask
from restora.operators.resizing import Bicubic


def operator_of(*, mask: Tensor | None = None, kernel: Tensor | None = None, scale: int = 1) -> Operator:
    """The operator of what an observation carries.

    Which pixels are known (1,1,H,W), the point-spread function (k,k), and how many times the photo was
    reduced: by MATLAB's bicubic, or, with a kernel, by taking every s-th pixel of the blurred photo.
    """
    if mask is not None and (kernel is not None or scale > 1):
        raise ValueError("a mask beside a kernel or a scale: there is no operator for both")
    if mask is not None:
        return Mask(mask)
    if kernel is not None:
        kernel = kernel.to(torch.float32)
        return MirroredBlur(kernel) if scale == 1 else BlurSubsample(kernel, scale)
    return Bicubic(scale) if scale > 1 else Identity()
