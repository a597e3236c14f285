"""CIEDE2000, the perceived difference of two colours.

Photos are sRGB, float (B,C,H,W) in [0,1], C = 1 or 3; the white point is D65. Sources: IEC 61966-2-1 (sRGB);
CIE 15 (L*a*b*); G. Sharma, W. Wu and E. Dalal, "The CIEDE2000 Color-Difference Formula: Implementation Notes,
Supplementary Test Data, and Mathematical Observations", Color Research and Application 30 (2005), whose
equations 2 to 22 are followed.

Legend: B photos, H height, W width.
"""

import torch
from torch import Tensor

from restora.metrics.pairs import checked_pair

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""Rows are X, Y and Z of linear R, G and B; their sums are the white point."""
_EDGE = 6 / 29
_FAR = 25.0**7


def delta_e(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean CIEDE2000 over the pixels of each photo, (B,): 0 where they are equal, about 1 just noticeable."""
    restored, clean = checked_pair(restored, clean)
    return ciede2000(to_lab(restored.clamp(0, 1)), to_lab(clean.clamp(0, 1))).mean(dim=(1, 2))


def to_lab(photo: Tensor) -> Tensor:
    """sRGB in [0,1], (B,1,H,W) or (B,3,H,W) -> L*, a*, b* (B,3,H,W), in float32 at least."""
    x = photo.to(torch.promote_types(photo.dtype, torch.float32)).expand(-1, 3, -1, -1)
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_TO_XYZ, dtype=x.dtype, device=x.device)
    matrix = matrix / matrix.sum(dim=1, keepdim=True)
    t = torch.einsum("ij,bjhw->bihw", matrix, linear)
    f = torch.where(t > _EDGE**3, t.clamp(min=_EDGE**3) ** (1 / 3), t / (3 * _EDGE**2) + 4 / 29)
    fx, fy, fz = f.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Colour difference of L*, a*, b* in dimension 1: (B,3,...) twice -> (B,...)."""
    (l1, a1, b1), (l2, a2, b2) = first.unbind(1), second.unbind(1)
    c_mean = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _saturating(c_mean)
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)
    colourless = c1 * c2 == 0

    turn = h2 - h1
    turn = torch.where(turn > 180, turn - 360, torch.where(turn < -180, turn + 360, turn))
    turn = torch.where(colourless, 0.0, turn)
    d_hue = 2 * (c1 * c2).sqrt() * _sin(turn / 2)

    total = h1 + h2
    opposite = (h1 - h2).abs() > 180
    mean_hue = torch.where(opposite, torch.where(total < 360, total + 360, total - 360), total) / 2
    mean_hue = torch.where(colourless, total, mean_hue)
    l_mean, c_mean = (l1 + l2) / 2, (c1 + c2) / 2

    weight = (
        1
        - 0.17 * _cos(mean_hue - 30)
        + 0.24 * _cos(2 * mean_hue)
        + 0.32 * _cos(3 * mean_hue + 6)
        - 0.20 * _cos(4 * mean_hue - 63)
    )
    from_middle = (l_mean - 50).square()
    s_l = 1 + 0.015 * from_middle / (20 + from_middle).sqrt()
    s_c = 1 + 0.045 * c_mean
    s_h = 1 + 0.015 * c_mean * weight
    rotation = -_sin(60 * torch.exp(-((mean_hue - 275) / 25).square())) * 2 * _saturating(c_mean)
    lightness, chroma, hue = (l2 - l1) / s_l, (c2 - c1) / s_c, d_hue / s_h
    squared = lightness.square() + chroma.square() + hue.square() + rotation * chroma * hue
    return squared.clamp(min=0).sqrt()


def _saturating(chroma: Tensor) -> Tensor:
    """0 for grey, towards 1 for strong colours: sqrt(C^7 / (C^7 + 25^7))."""
    power = chroma**7
    return (power / (power + _FAR)).sqrt()


def _hue(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan2(b, a)) % 360


def _sin(degrees: Tensor) -> Tensor:
    return torch.sin(torch.deg2rad(degrees))


def _cos(degrees: Tensor) -> Tensor:
    return torch.cos(torch.deg2rad(degrees))
