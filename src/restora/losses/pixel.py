"""Losses between two photos, pixel by pixel or window by window.

Each takes `restored` and `clean`, float (B,C,H,W) on the [0,1] scale, and returns a scalar that is minimal
where they are equal. Arithmetic is in float32 even under autocast.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.registry import register


@register("loss", "charbonnier")
class CharbonnierLoss(nn.Module):
    """Mean of sqrt(d^2 + eps^2): the absolute error, smooth within `eps` of zero.

    Charbonnier et al., ICIP 1994; in restoration since Lai et al., "Deep Laplacian Pyramid Networks", CVPR
    2017.
    """

    def __init__(self, *, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(
                f"loss.eps must be above 0, got {eps}: at 0 equal pixels have no gradient, take loss=l1"
            )
        self.eps = eps

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        difference = restored.float() - clean.float()
        return (difference.square() + self.eps**2).sqrt().mean()


@register("loss", "psnr")
class PSNRLoss(nn.Module):
    """The negative PSNR of each photo in dB, averaged: 10 log10(MSE + floor).

    NAFNet's loss (HINet, CVPRW 2021).

    Unlike the mean squared error, it weights easy and hard photos alike. `floor` bounds it at -80 dB.
    """

    def __init__(self, *, floor: float = 1e-8) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        error = (restored.float() - clean.float()).square().mean((1, 2, 3))  # (B,)
        return 10 * (error + self.floor).log10().mean()


@register("loss", "ssim")
class SSIMLoss(nn.Module):
    """1 - SSIM, the mean over all windows that lie inside the photo, computed per channel.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", TIP 2004: a Gaussian window of 11 x 11 with deviation 1.5, K1 = 0.01, K2 = 0.03, range 1. H
    and W must be at least 11.
    """

    window: Tensor

    def __init__(self, *, size: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        if size < 3 or size % 2 == 0:
            raise ValueError(f"the SSIM window has an odd size of 3 or more, got {size}")
        at = torch.arange(size, dtype=torch.float64) - size // 2
        window = torch.exp(-0.5 * (at / sigma) ** 2)
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    @property
    def minimum_size(self) -> int:
        """The smallest H and W that it accepts."""
        return self.window.numel()

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        size = self.minimum_size
        if min(clean.shape[-2:]) < size:
            raise ValueError(
                f"SSIM needs photos of {size}x{size} or more, got {clean.shape[-2]}x{clean.shape[-1]}: "
                "raise data.patch_size"
            )
        with torch.autocast(clean.device.type, enabled=False):
            x, y = (photo.float().flatten(0, 1).unsqueeze(1) for photo in (restored, clean))  # (BC,1,H,W)
            moments = self._blur(torch.cat((x, y, x * x, y * y, x * y)))
            mean_x, mean_y, square_x, square_y, product = moments.chunk(5)
            c1, c2 = 0.01**2, 0.03**2
            covariance = product - mean_x * mean_y
            variances = (square_x - mean_x.square()) + (square_y - mean_y.square())
            ssim = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
            ssim = ssim / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))
            return 1 - ssim.mean()

    def _blur(self, x: Tensor) -> Tensor:
        """(N,1,H,W) -> (N,1,H-size+1,W-size+1)."""
        return F.conv2d(F.conv2d(x, self.window.view(1, 1, -1, 1)), self.window.view(1, 1, 1, -1))


@register("loss", "weighted_sum")
class WeightedSum(nn.Module):
    """The sum of weight * loss over several losses, for instance L1 and 1 - SSIM (Zhao et al., TCI 2017)."""

    def __init__(self, *, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ValueError(
                f"every loss has its weight, got {len(losses)} losses and {len(weights)} weights"
            )
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights)

    @property
    def minimum_size(self) -> int:
        """The smallest H and W that all losses accept."""
        return max(smallest_side(loss) for loss in self.losses)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        parts = [w * loss(restored, clean) for w, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(parts).sum()


@register("loss", "l1")
class L1Loss(nn.L1Loss):
    """The mean absolute error."""

    def __init__(self) -> None:
        super().__init__()


@register("loss", "mse")
class MSELoss(nn.MSELoss):
    """The mean squared error."""

    def __init__(self) -> None:
        super().__init__()


def smallest_side(loss: Any) -> int:
    """The smallest H and W that a loss accepts, its `minimum_size`; 1 for one that has none."""
    return int(getattr(loss, "minimum_size", 1))


def centre_of(loss: Any) -> Literal["mean", "median"] | None:
    """The centre of a target distribution at which the loss is minimal.

    The mean for a squared error, the median for an absolute error; None for a loss with no such centre.
    """
    if isinstance(loss, WeightedSum):
        found = {centre_of(part) for part in loss.losses}
        return found.pop() if len(found) == 1 else None
    if isinstance(loss, nn.MSELoss | PSNRLoss):
        return "mean"
    return "median" if isinstance(loss, nn.L1Loss | CharbonnierLoss) else None
