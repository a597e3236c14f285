"""Point-spread functions drawn per sample and applied to a batch at once.

Legend: B samples, C channels, H height, W width, k kernel side.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Degradation, Params


def pad_mirrored(x: Tensor, radius: int) -> Tensor:
    """Mirrors the borders without repeating the edge; repeats the edge where the photo is too small for
    that.
    """
    mode = "reflect" if min(x.shape[-2:]) > radius else "replicate"
    return F.pad(x, (radius, radius, radius, radius), mode=mode)


def filter_per_sample(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolves sample b of (B,C,H,W) with kernel b of (B,k,k), k odd, mirrored borders: one grouped
    convolution.
    """
    batch, channels, height, width = x.shape
    side = kernels.shape[-1]
    padded = pad_mirrored(x, side // 2)
    weight = (
        kernels.flip(-2, -1)[:, None].expand(-1, channels, -1, -1).reshape(batch * channels, 1, side, side)
    )
    y = F.conv2d(padded.reshape(1, batch * channels, *padded.shape[-2:]), weight, groups=batch * channels)
    return y.view(batch, channels, height, width)


def normalised(kernels: Tensor) -> Tensor:
    """Kernels (B,k,k) that sum to one."""
    return kernels / kernels.sum((-2, -1), keepdim=True)


def pixel_grid(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row offsets (1,k,1) and column offsets (1,1,k) from the centre, k = 2 radius + 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    return offsets.view(1, -1, 1), offsets.view(1, 1, -1)


class KernelBlur(Degradation):
    """A blur that is one point-spread function per sample; a subclass says which."""

    radius: int
    """Half the side of the kernels, in pixels: the widest blur fits."""

    @abstractmethod
    def kernels(self, params: Params) -> Tensor:
        """Point-spread functions (B,k,k) that sum to one, k = 2 radius + 1."""

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return filter_per_sample(clean, self.kernels(params))
