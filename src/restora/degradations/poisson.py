"""Keyed Poisson numbers: torch's own sampler takes no keys, and a rejection loop is no function of
position.
"""

import torch
from torch import Tensor

from restora.degradations.keyed import KeyedGenerator

_SMALL = 4.0
_TERMS = 20
_CHUNK = 1 << 16
"""Numbers made at once on a CPU: the hundred passes over them then meet the cache (2.4 times faster)."""


def poisson(rate: Tensor, generator: KeyedGenerator) -> Tensor:
    """Poisson counts, float32, for rates >= 0 of shape (B,...); a count depends on key, position and rate
    alone.
    """
    size = rate.shape[1:]
    return poisson_from(rate, generator.uniform(size), generator.normal(size))


def poisson_from(rate: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Poisson counts as a function of a uniform and a standard normal number for each; all of one shape.

    Below a rate of 4 the distribution function is inverted term by term, which is exact to the 2^-24 of the
    uniform. From 4 on, the normal goes through the asymptotic inverse of Giles ("Algorithm 955:
    approximation of the inverse Poisson cumulative distribution function", ACM TOMS 2016, with both
    correction terms): the total variation from the exact distribution is 7e-4 at a rate of 4 and 1e-4 at 10,
    the mean is right to 2e-4.
    """
    out = torch.empty_like(rate, memory_format=torch.contiguous_format)
    size = _CHUNK if rate.device.type == "cpu" else max(1, rate.numel())
    parts = (t.reshape(-1).split(size) for t in (out, rate, uniform, normal))
    for o, r, u, w in zip(*parts, strict=True):
        torch.where(r < _SMALL, _by_inversion(r, u), _by_normal(r, w), out=o)
    return out


def _by_inversion(rate: Tensor, uniform: Tensor) -> Tensor:
    """Counts the values whose distribution function `uniform` exceeds; 20 terms leave 1e-8 at a rate of 4."""
    rate = rate.clamp(max=_SMALL)
    left = uniform.clone()
    term = torch.exp(-rate)
    count = torch.zeros_like(rate)
    passed = torch.empty_like(rate, dtype=torch.bool)
    for k in range(1, _TERMS + 1):
        left.sub_(term)
        torch.ge(left, 0, out=passed)
        count.add_(passed)
        term.mul_(rate).mul_(1 / k)
    return count


def _by_normal(rate: Tensor, w: Tensor) -> Tensor:
    """floor(r + sqrt(r) w + (2 + w^2)/6 - (w^3/72 + w/36)/sqrt(r) + (w^4/270 + 7w^2/810 - 8/405)/r)."""
    rate = rate.clamp(min=_SMALL)
    root = rate.sqrt()
    square = w.square()
    last = square.mul(1 / 270).add_(7 / 810).mul_(square).sub_(8 / 405).div_(rate)
    slope = root - square.mul(1 / 72).add_(1 / 36).div_(root)
    return slope.mul_(w).add_(rate).add_(square, alpha=1 / 6).add_(1 / 3).add_(last).floor_().clamp_(min=0)
