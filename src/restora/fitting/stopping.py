"""Early stopping without a clean photo: where the output of a fit varies least (ES-WMV).

H. Wang et al., "Early Stopping for Deep Image Prior", TMLR 2023: while a fit approaches the photo its outputs
come to rest; when it begins to fit the noise they move again. The variance over the last `window` outputs has
its minimum near the best PSNR.
"""

from collections import deque

import torch
from torch import Tensor

WATCHED = 1 << 16
"""Pixels of an output that are watched, spread evenly: a window of 100 takes 26 MB, for photos of any
size."""


class EarlyStop:
    """Is called with every output; `picture` is the one where their variance was smallest.

    `patience` is how many steps may pass without a smaller variance.
    """

    def __init__(self, *, window: int = 100, patience: int = 1000) -> None:
        if window < 2 or patience < 1:
            raise ValueError(f"window must be 2 or more and patience 1 or more, got {window} and {patience}")
        self.window, self.patience = window, patience
        self.picture: Tensor | None = None
        self.step = 0
        self.least = float("inf")
        self._outputs: deque[Tensor] = deque(maxlen=window)
        self._sum: Tensor | None = None
        self._power = 0.0

    def __call__(self, step: int, output: Tensor, picture: Tensor) -> bool:
        """Whether to stop after this step."""
        variance = self._variance(output)
        if variance is None:
            return False
        if variance < self.least:
            self.least, self.step, self.picture = variance, step, picture.clone()
        return step - self.step >= self.patience

    def _variance(self, output: Tensor) -> float | None:
        """Mean over pixels of the variance over the window; None until that is full."""
        values = output.detach().flatten()
        values = values[:: max(1, values.numel() // WATCHED)].double()
        if len(self._outputs) == self.window:
            oldest = self._outputs[0].double()
            assert self._sum is not None
            self._sum -= oldest
            self._power -= float(oldest.square().sum())
        self._outputs.append(values.float())
        kept = self._outputs[-1].double()
        self._sum = kept.clone() if self._sum is None else self._sum + kept
        self._power += float(kept.square().sum())
        if len(self._outputs) < self.window:
            return None
        mean = self._sum / self.window
        return (self._power / self.window - float(mean.square().sum())) / values.numel()


def psnr_between(a: Tensor, b: Tensor) -> float:
    """PSNR in dB of two tensors on the [0,1] scale."""
    return float(-10 * torch.log10((a - b).square().mean().clamp(min=1e-12)))
