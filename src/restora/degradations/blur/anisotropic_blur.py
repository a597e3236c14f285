"""Elliptic blurs: Gaussian, generalised Gaussian and plateau, as BSRGAN and Real-ESRGAN draw them."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_odd_range, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register

Profile = Literal["gaussian", "generalised", "plateau"]


@register("degradation", "anisotropic_blur")
class AnisotropicBlur(KernelBlur):
    """Point-spread function f(q), q the squared distance in units of the standard deviations along two axes.

    `gaussian`: exp(-q/2). `generalised`: exp(-q^beta / 2), flat and steep for beta > 1, heavy-tailed below.
    `plateau`: 1 / (1 + q^beta). `sigma` is the standard deviation (pixels) along each axis, drawn separately
    for the two; `isotropic` uses the first for both. `angle` of the first axis in degrees. `size` is the side
    of the window in pixels, drawn as an odd number: Real-ESRGAN truncates its kernels at 7 to 21 (Wang et
    al., ICCVW 2021, sec. 3.1; Liu et al., "Estimating generalized Gaussian blur kernels for out-of-focus
    image deblurring", 2020). Numbers or ranges, drawn uniformly per sample; betas below and above 1 are
    equally likely when the range holds both.
    """

    def __init__(
        self,
        *,
        sigma: Range,
        angle: Range = (0.0, 180.0),
        profile: Profile = "gaussian",
        beta: Range = 1.0,
        isotropic: bool = False,
        size: Range = 21,
    ) -> None:
        if profile not in get_args(Profile):
            raise ValueError(f"profile must be one of {', '.join(get_args(Profile))}, got {profile!r}")
        self.sigma = as_range("sigma", sigma, least=1e-2)
        self.angle = as_range("angle", angle)
        self.beta = as_range("beta", beta, least=1e-2)
        self.profile, self.isotropic = profile, isotropic
        low, high = as_odd_range("size", size)
        self.half_sizes = (low // 2, high // 2)
        self.radius = self.half_sizes[1]

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        sigma = generator.uniform((2,), *self.sigma)
        return {
            "sigma": sigma[:, :1].expand(-1, 2) if self.isotropic else sigma,
            "angle": generator.uniform((), *self.angle),
            "beta": _around_one(generator.uniform((2,)), *self.beta),
            "half_size": generator.integers(self.half_sizes[0], self.half_sizes[1] + 1),
        }

    def kernels(self, params: Params) -> Tensor:
        angle = params["angle"].view(-1, 1, 1) * (math.pi / 180)
        rows, columns = pixel_grid(self.radius, angle.device)
        along = columns * angle.cos() - rows * angle.sin()
        across = columns * angle.sin() + rows * angle.cos()
        first, second = (s.view(-1, 1, 1) for s in params["sigma"].unbind(1))
        q = (along / first).square_() + (across / second).square_()
        beta = params["beta"].view(-1, 1, 1)
        if self.profile == "gaussian":
            weights = torch.exp(-q / 2)
        elif self.profile == "generalised":
            weights = torch.exp(-q.pow(beta) / 2)
        else:
            weights = 1 / (1 + q.pow(beta))
        half = params["half_size"].view(-1, 1, 1)
        return normalised(weights * ((rows.abs() <= half) & (columns.abs() <= half)))


def _around_one(draws: Tensor, low: float, high: float) -> Tensor:
    """(B,2) uniform draws -> (B,): the first decides between below and above one, the second the value."""
    which, place = draws.unbind(1)
    if not low < 1 < high:
        return low + (high - low) * place
    return torch.where(which < 0.5, low + (1 - low) * place, 1 + (high - 1) * place)
