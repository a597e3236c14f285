"""Full-reference metrics of the field, one number per photo, batched on the device of their inputs.

Both photos are float (B,C,H,W) on the [0,1] scale, neither rounded nor clamped here:
`restora.evaluation.protocol` does that. Every function computes in float32 at least, whatever the input.

Legend: B photos, C channels, H height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.metrics.pairs import checked_pair

WINDOW = 11
_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SIDE = WINDOW * 2 ** (len(_MS_WEIGHTS) - 1)


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each photo, (B,): `10 log10(1 / MSE)`, the MSE over C, H and W.

    Infinite where the two photos are equal.
    """
    restored, clean = checked_pair(restored, clean)
    return -10 * (restored - clean).square().mean(dim=(1, 2, 3)).log10()


def ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each photo, (B,), at most 1; mean over pixels whose window fits, then over C.

    Wang, Bovik, Sheikh and Simoncelli, TIP 2004, eq. 13, as in the authors' MATLAB code: Gaussian window of
    11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, no padding. Raises `ValueError` for a side below 11.
    """
    similarity, _ = _ssim_terms(*checked_pair(restored, clean))
    return similarity.mean(dim=1)


def ms_ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """Multi-scale structural similarity of each photo, (B,); five scales, each half the last by 2x2 means.

    Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7 with the weights they fitted; negative contrast terms
    count as zero, as the power of a negative number is not defined. Raises `ValueError` for a side below
    176, whose fifth scale is smaller than the window.
    """
    restored, clean = checked_pair(restored, clean)
    if min(clean.shape[-2:]) < MS_SIDE:
        raise ValueError(f"MS-SSIM needs sides of at least {MS_SIDE} pixels, got {tuple(clean.shape[-2:])}")
    product = torch.ones_like(clean[:, :, 0, 0])
    for scale, weight in enumerate(_MS_WEIGHTS):
        similarity, contrast = _ssim_terms(restored, clean)
        last = scale == len(_MS_WEIGHTS) - 1
        product = product * (similarity if last else contrast).clamp(min=0) ** weight
        if not last:
            restored, clean = F.avg_pool2d(restored, 2), F.avg_pool2d(clean, 2)
    return product.mean(dim=1)


def psnr_b(restored: Tensor, clean: Tensor, block: int = 8, border: int = 0) -> Tensor:
    """PSNR in dB of each photo, (B,), the blocking effect of the restored one added to the MSE; mean over C.

    Yim and Bovik, "Quality assessment of deblocked images", TIP 2011, eqs. 1-6; the pairs across block
    borders are counted exactly, also where a side is no multiple of the block. `border` pixels were cut off
    at the top and the left, so that the first block is not whole.
    """
    restored, clean = checked_pair(restored, clean)
    error = (restored - clean).square().mean(dim=(2, 3)) + _blocking_effect(restored, block, border)
    return (-10 * error.log10()).mean(dim=1)


def _window(x: Tensor) -> Tensor:
    """The Gaussian-weighted mean around every pixel whose window fits, (N,H,W) -> (N,H-10,W-10).

    Sums of shifted views: 8 ms for 15 planes of 321x481 on one core, where two one-channel `conv2d` take 135.
    """
    offset = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    taps = torch.exp(-offset.square() / (2 * _SIGMA**2))
    weights = (taps / taps.sum()).tolist()
    for axis in (-1, -2):
        length = x.shape[axis] - WINDOW + 1
        out = x.narrow(axis, 0, length) * weights[0]
        for tap in range(1, WINDOW):
            out.add_(x.narrow(axis, tap, length), alpha=weights[tap])
        x = out
    return x


def _ssim_terms(restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the valid pixels of SSIM and of its contrast-structure term, each (B,C)."""
    batch, channels, height, width = clean.shape
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs sides of at least {WINDOW} pixels, got {height}x{width}")
    x, y = restored.flatten(0, 1), clean.flatten(0, 1)
    moments = _window(torch.cat((x, y, x * x, y * y, x * y)))
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5)
    covariance = 2 * (product - mean_x * mean_y)
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    contrast = (covariance + _C2) / (variances + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    shape = (batch, channels)
    return (luminance * contrast).mean(dim=(1, 2)).view(shape), contrast.mean(dim=(1, 2)).view(shape)


def _blocking_effect(x: Tensor, block: int, cut: int) -> Tensor:
    """BEF of Yim and Bovik, (B,C,H,W) -> (B,C): how much more neighbours differ across block borders."""
    height, width = x.shape[-2:]
    if min(height, width) <= block:
        raise ValueError(f"PSNR-B needs sides above the block size {block}, got {height}x{width}")
    border = inside = torch.zeros_like(x[:, :, 0, 0])
    borders = insides = 0
    for axis, across in ((-1, height), (-2, width)):
        length = x.shape[axis] - 1
        step = (x.narrow(axis, 1, length) - x.narrow(axis, 0, length)).square()
        at_border = torch.arange(cut + 1, cut + length + 1, device=x.device) % block == 0
        per_line = step.sum(dim=-2 if axis == -1 else -1)  # (B,C,length)
        count = (cut + length) // block - cut // block
        border = border + (per_line * at_border).sum(dim=-1)
        inside = inside + (per_line * ~at_border).sum(dim=-1)
        borders += count * across
        insides += (length - count) * across
    border, inside = border / borders, inside / insides
    weight = math.log2(block) / math.log2(min(height, width))
    return torch.where(border > inside, weight * (border - inside), torch.zeros_like(border))
