"""Pointwise operators: the identity (noise, JPEG), and a mask (inpainting, mosaics)."""

import torch
from torch import Tensor

from restora.operators.base import Operator, check_rho


class Identity(Operator):
    """y = x: the degradation is noise alone."""

    def A(self, x: Tensor) -> Tensor:
        return x

    def At(self, y: Tensor) -> Tensor:
        return y

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        return (y + rho * z) / (1 + rho)


class Mask(Operator):
    """y = m x, with m (1,1,H,W) or (1,C,H,W): 1 where the pixel is known, 0 where it is lost."""

    def __init__(self, mask: Tensor) -> None:
        if not isinstance(mask, Tensor) or mask.ndim != 4 or len(mask) != 1:
            what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"a mask must be a tensor (1,1,H,W) or (1,C,H,W), got {what}")
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("a mask must be 1 where a pixel is known and 0 where it is missing")
        self.mask = mask if mask.is_floating_point() else mask.float()

    def check(self, y: Tensor) -> None:
        channels, *size = self.mask.shape[1:]
        if channels not in (1, y.shape[1]) or size != list(y.shape[-2:]):
            raise ValueError(
                f"the mask is {tuple(self.mask.shape)}, the photo {tuple(y.shape)}: make H and W equal"
            )
        if not self.mask.any():
            raise ValueError("the mask is 0 everywhere: nothing of the photo is known; 1 marks known pixels")

    def A(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x)

    def At(self, y: Tensor) -> Tensor:
        return y * self.mask.to(y)

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        mask = self.mask.to(z)
        return (mask * y + rho * z) / (mask + rho)

    def start(self, y: Tensor) -> Tensor:
        """Lost pixels start as the mean of known ones, in a window that grows until it holds any."""
        mask = self.mask.to(y).expand_as(y)
        filled, lost = mask * y, mask == 0
        width = 1
        while bool(lost.any()) and width < 2 * max(y.shape[-2:]):
            width *= 2
            sums, weights = (_box(plane, width) for plane in (mask * y, mask))
            found = lost & (weights > 0)  # a mean of zeros is exactly 0
            filled = torch.where(found, sums / weights, filled)
            lost = lost & ~found
        return filled


def _box(x: Tensor, radius: int) -> Tensor:
    """The mean over (2 radius + 1)^2 pixels, those outside the photo counted as 0."""
    side = 2 * radius + 1
    rows = torch.nn.functional.avg_pool2d(x, (side, 1), 1, (radius, 0))
    return torch.nn.functional.avg_pool2d(rows, (1, side), 1, (0, radius))


def bayer(height: int, width: int, pattern: str = "RGGB") -> Tensor:
    """The mask of a Bayer mosaic, (1,3,H,W): the colour that each pixel of the sensor sees."""
    if len(pattern) != 4 or set(pattern) != set("RGB"):
        raise ValueError(f"a Bayer pattern must be the colours of 2x2 pixels, such as RGGB, got {pattern!r}")
    mask = torch.zeros(1, 3, height, width)
    for place, colour in enumerate(pattern):
        mask[:, "RGB".index(colour), place // 2 :: 2, place % 2 :: 2] = 1
    return mask
