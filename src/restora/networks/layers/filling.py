"""Missing pixels filled from the known ones around them.

Two methods, of which the second starts from the first at every scale:

- Push-pull: S. Gortler, R. Grzeszczuk, R. Szeliski, M. Cohen, "The Lumigraph", SIGGRAPH 1996, section 4.
  Means of the known pixels are taken over ever larger cells, and a missing pixel gets its value from the
  smallest cells with a known pixel.
- Harmonic: a missing pixel is the mean of its 3 x 3 neighbours (Laplace's equation). It is solved first for
  the coarsest cells, then for ever smaller ones down to pixels (F. Bornemann, P. Deuflhard, "The cascadic
  multigrid method for elliptic problems", Numerische Mathematik 75, 1996), at each scale by sweeps of
  Chebyshev's semi-iteration (G. Golub, R. Varga, "Chebyshev semi-iterative methods", Numerische Mathematik 3,
  1961).

Legend: B samples, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
"""Cells of up to 32 x 32 pixels; where these have no known pixel, the mean of the photo is used."""
SWEEPS = 4
"""Sweeps at each scale; eight are worth 0.04 dB more on Kodak24 with strokes, letters, scratches, boxes."""
_SLOWEST, _FASTEST = 0.02, 4 / 3
"""The range of eigenvalues of (identity - mean of 3 x 3) that the sweeps reduce; the largest is 4/3."""


def filled_from_around(x: Tensor, known: Tensor, sweeps: int = 0) -> Tensor:
    """(B,C,H,W) and (B,1,H,W), 1 = known -> x where known, elsewhere values from known pixels nearby.

    H and W are multiples of 32. No `sweeps` is push-pull alone; from `SWEEPS` on it is nearly harmonic.
    Computed in float32 at least.
    """
    precise = torch.promote_types(x.dtype, torch.float32)
    values, share = (x * known).to(precise), known.to(precise)
    levels = []
    for _ in range(LEVELS):
        levels.append((values, share))
        values, share = F.avg_pool2d(values, 2), F.avg_pool2d(share, 2)
    total = share.mean((2, 3), keepdim=True).clamp(min=1e-6)
    filled = values + (1 - share) * (values.mean((2, 3), keepdim=True) / total)
    for values, share in reversed(levels):
        coarse = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        filled = values + (1 - share) * coarse
        filled = _smooth(filled, values, share, sweeps)
    return filled.to(x.dtype)


def _smooth(filled: Tensor, values: Tensor, share: Tensor, sweeps: int) -> Tensor:
    """Sweeps of Chebyshev's semi-iteration, after which the unknown part of a cell is the mean around it.

    (B,C,H,W), `share` (B,1,H,W) -> (B,C,H,W). By its recurrence, which, unlike the product, is stable for any
    number of sweeps.
    """
    middle, half = (_FASTEST + _SLOWEST) / 2, (_FASTEST - _SLOWEST) / 2
    ratio, step = half / middle, torch.zeros_like(filled)
    for sweep in range(sweeps):
        residual = values + (1 - share) * _mean3x3(filled) - filled
        if sweep == 0:
            step = residual / middle
        else:
            following = 1 / (2 * middle / half - ratio)
            step, ratio = following * ratio * step + 2 * following / half * residual, following
        filled = filled + step
    return filled


def _mean3x3(x: Tensor) -> Tensor:
    """By sums of slices, which on a CPU take a ninth of the time of `avg_pool2d`."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    total: Tensor = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return total / 9
