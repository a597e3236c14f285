"""Unsharp masking, as Real-ESRGAN sharpens its photos before it degrades them."""

import torch
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor

from restora.degradations.filtering import filter_separably, pad_mirrored

_TAPS = 51
_SIGMA = 8.0  # what OpenCV gives a kernel of 51 taps


def unsharp_mask(x: Tensor, *, weight: float = 0.5, threshold: float = 10.0) -> Tensor:
    """(B,C,H,W) in [0,1] -> the same, sharper where it differs from its blur by more than `threshold` / 255.

    The blur is Gaussian of 8 pixels in 51 taps; where the difference is large is itself blurred into a soft
    mask (Wang et al., "Real-ESRGAN", ICCVW 2021, sec. 3.4). Their code filters with 51 x 51 taps, which was
    three quarters of the time of their degradation; the kernel is separable. Photos of less than 26 pixels
    repeat their edge.
    """
    taps = get_gaussian_kernel1d(_TAPS, _SIGMA, device=x.device, dtype=x.dtype)
    residual = x - filter_separably(pad_mirrored(x, _TAPS // 2), taps)
    mask = (residual.abs() * 255 > threshold).to(x.dtype)
    soft = filter_separably(pad_mirrored(mask, _TAPS // 2), taps)
    sharp = torch.add(x, residual, alpha=weight).clamp_(0, 1)
    return torch.lerp(x, sharp, soft)
