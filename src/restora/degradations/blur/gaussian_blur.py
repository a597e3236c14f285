"""Gaussian blur with a width per sample."""

import math

from torch import Tensor

from restora.degradations.base import Degradation, Params, Severity, Shape
from restora.degradations.blur.filtering import filter_separably, pad_mirrored, visible
from restora.degradations.parameters import Range, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "gaussian_blur")
class GaussianBlur(Degradation):
    """Isotropic Gaussian blur, `sigma` in pixels: a number or a range drawn uniformly per sample.

    Mirrored borders.

    The kernel reaches four standard deviations of the widest blur (scipy's convention) and sums to one.
    kornia's two parts are used and not its `gaussian_blur2d`, which checks `sigma > 0` on the host and so
    waits for the device.
    """

    def __init__(self, *, sigma: Range) -> None:
        self.sigma = as_range("sigma", sigma, least=0)
        self.radius = math.ceil(4 * self.sigma[1])

    @property
    def severity(self) -> Severity:
        return Severity("width", *self.sigma)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"sigma": generator.uniform((), *self.sigma)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        from kornia.filters import get_gaussian_kernel1d

        # a thousandth of a pixel blurs nothing; at 0 kornia's kernels before 0.9 are NaN
        sigma = params["sigma"][:, None].clamp(min=1e-3)
        taps = visible(get_gaussian_kernel1d(2 * self.radius + 1, sigma))
        return filter_separably(pad_mirrored(clean, self.radius), taps)
