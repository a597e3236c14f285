"""Keyed Poisson numbers: torch's sampler takes no keys, and rejection is not a function of position."""

import torch
from torch import Tensor

from restora.degradations.parameters import host_knows
from restora.keyed import KeyedGenerator

_SMALL = 4.0
_TERMS = 20
_UNLIKELY = 2.0**-25
"""Probabilities below it do not change a float32 near 1."""
_CHUNK = 1 << 16
"""Numbers that a CPU thread computes at once, so that the passes over them stay in its cache."""


def poisson(rate: Tensor, generator: KeyedGenerator) -> Tensor:
    """Poisson counts, float32, for rates >= 0 of shape (B,...).

    A count depends on key, position and rate alone.
    """
    return poisson_from(rate, generator.normal(rate.shape[1:]))


@torch.no_grad()  # counts are whole numbers, as of torch.poisson
def poisson_from(rate: Tensor, normal: Tensor) -> Tensor:
    """Poisson counts as an increasing function of one standard normal number each; both of one shape.

    From a rate of 4 on, this is the asymptotic inverse of Giles ("Algorithm 955: approximation of the
    inverse Poisson cumulative distribution function", ACM TOMS 2016, with both correction terms): the total
    variation from the exact distribution is 7e-4 at a rate of 4 and 1e-4 at 10, the mean is right to 2e-4.
    Below, the distribution function is inverted term by term, exact to float32.
    """
    out = torch.empty_like(rate, memory_format=torch.contiguous_format)
    if not host_knows(rate):
        return torch.where(rate < _SMALL, _by_inversion(rate, normal), _by_expansion(rate, normal), out=out)
    chunk = _CHUNK * torch.get_num_threads()
    parts = zip(*(t.reshape(-1).split(chunk) for t in (out, rate, normal)), strict=True)
    for o, r, w in parts:
        o.copy_(_by_expansion(r, w))
    # small rates are a photo's few dark pixels; on a CPU they are selected without waiting for a device
    small = (rate.reshape(-1) < _SMALL).nonzero()[:, 0]
    for index in small.split(chunk):
        out.view(-1)[index] = _by_inversion(rate.reshape(-1)[index], normal.reshape(-1)[index])
    return out


def _by_inversion(rate: Tensor, w: Tensor) -> Tensor:
    """Counts the values whose distribution function Phi(w) exceeds; 20 terms leave 1e-8 at a rate of 4.

    It ends where values become unlikely: there the difference is a rounding error, exactly 0 at a rate of 0.
    """
    rate = rate.clamp(max=_SMALL)
    left = torch.special.ndtr(w)
    term = torch.exp(-rate)
    count = torch.zeros_like(rate)
    for k in range(1, _TERMS + 1):
        left.sub_(term)
        term.mul_(rate).mul_(1 / k)
        count.add_((left >= 0) & (term > _UNLIKELY))
    return count


def _by_expansion(rate: Tensor, w: Tensor) -> Tensor:
    """floor(r + sqrt(r) w + (2 + w^2)/6 - (w^3/72 + w/36)/sqrt(r) + (w^4/270 + 7w^2/810 - 8/405)/r)."""
    rate = rate.clamp(min=_SMALL)
    root = rate.sqrt()
    square = w.square()
    last = square.mul(1 / 270).add_(7 / 810).mul_(square).sub_(8 / 405).div_(rate)
    slope = root - square.mul(1 / 72).add_(1 / 36).div_(root)
    return slope.mul_(w).add_(rate).add_(square, alpha=1 / 6).add_(1 / 3).add_(last).floor_().clamp_(min=0)
