"""Point-spread functions drawn per sample and applied to a batch at once.

Legend: B samples, C channels, H height, W width, k kernel side.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Degradation, Params

_DIRECT_UP_TO = 25
"""Kernel side above which the FFT is faster: 16x3x128x128 on a CPU core, 21 taps 10 ms directly and 20 by
FFT, 31 taps 24 and 17.
"""


def pad_mirrored(x: Tensor, radius: int) -> Tensor:
    """Reflection padding, without repeating the edge; replicate padding where a photo is too small."""
    mode = "reflect" if min(x.shape[-2:]) > radius else "replicate"
    return F.pad(x, (radius, radius, radius, radius), mode=mode)


def filter_per_sample(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolves sample b of (B,C,H,W) with kernel b of (B,k,k), k odd, with mirrored borders.

    Small kernels take one grouped convolution, large ones the FFT.
    """
    from kornia.filters import filter2d

    padded, alone = _in_company(pad_mirrored(x, kernels.shape[-1] // 2))
    if kernels.shape[-1] > _DIRECT_UP_TO:
        return _by_spectrum(padded, kernels)[:, :alone]
    return filter2d(padded, kernels, padding="valid", behaviour="conv")[:, :alone]


def filter_separably(padded: Tensor, taps: Tensor) -> Tensor:
    """Filters the rows and the columns of (B,C,H+k-1,W+k-1) with taps (B,k) or, for all samples, (1,k)."""
    from kornia.filters import filter2d_separable

    padded, alone = _in_company(padded)
    return filter2d_separable(padded, taps, taps, padding="valid")[:, :alone]


def _in_company(x: Tensor) -> tuple[Tensor, int]:
    """A single plane twice, and the number of channels to keep.

    For a single group oneDNN uses another convolution, and for a single plane MKL another transform. These
    differ in the last bit, so that a grey photo alone would not be the same as in a batch. (With the FFT it
    may still differ in the last bit where a complex product is the last of its row.)
    """
    channels = x.shape[1]
    return (x.expand(-1, 2, -1, -1) if x.shape[0] * channels == 1 else x), channels


def _by_spectrum(padded: Tensor, kernels: Tensor) -> Tensor:
    """The part of a circular convolution that does not wrap around: (B,C,H+k-1,W+k-1) -> (B,C,H,W)."""
    reach = kernels.shape[-1] - 1
    size = [_fast_length(n) for n in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size).mul_(torch.fft.rfft2(kernels, s=size)[:, None])
    return torch.fft.irfft2(spectrum, s=size)[..., reach : padded.shape[-2], reach : padded.shape[-1]]


def _fast_length(n: int) -> int:
    """The next even length without prime factors above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and n % 2 == 0:
            return n
        n += 1


def normalised(kernels: Tensor) -> Tensor:
    """Kernels (B,k,k) that sum to one, with taps that are negligible in float32 set to zero."""
    return visible(kernels / kernels.sum((-2, -1), keepdim=True))


def visible(taps: Tensor) -> Tensor:
    """Taps of a filter that sum to one, with those that are negligible in float32 set to zero.

    The outer taps of a Gaussian are subnormal numbers, by which a CPU multiplies slowly: 21x21 taps of
    generalised blurs on 8x3x256x256 took 229 ms on one core, and 43 ms without them.
    """
    return taps * (taps.abs() > 1e-12)


def pixel_grid(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row offsets (1,k,1) and column offsets (1,1,k) from the centre, k = 2 radius + 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    return offsets.view(1, -1, 1), offsets.view(1, 1, -1)


class KernelBlur(Degradation):
    """A blur by one point-spread function per sample, which a subclass defines."""

    radius: int
    """Half the side of the kernels, in pixels: the widest blur fits."""

    @abstractmethod
    def kernels(self, params: Params) -> Tensor:
        """Point-spread functions (B,k,k) that sum to one, k = 2 radius + 1."""

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return filter_per_sample(clean, self.kernels(params))
