"""Exponential moving average of a network's weights.

The average is a second network beside the first, so a checkpoint holds both by name, a resumed run continues
both, and validation, export and evaluation use either without swapping weights.
"""

import copy

import torch
from torch import Tensor, nn

from restora.networks.base import Network


def averaged_copy(network: Network) -> Network:
    """A copy in evaluation mode that is not trained."""
    return copy.deepcopy(network).requires_grad_(False).eval()


class Average:
    """Updates the average of a network's weights, with one or two kernels for all of them.

    Note: it holds references to the tensors of both, so it is made after they are on their device.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        pairs = list(zip(average.buffers(), network.buffers(), strict=True))
        floats: list[tuple[Tensor, Tensor]] = [pair for pair in pairs if pair[0].is_floating_point()]
        floats += zip(average.parameters(), network.parameters(), strict=True)
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._floats, self._counts = _sides(floats), _sides(counts)

    @torch.no_grad()
    def update(self, *, decay: float, updates: int) -> None:
        """`average <- d * average + (1 - d) * network`, with d larger in later steps.

        `d = min(decay, (1 + t) / (10 + t))` after t = `updates` steps.

        The growing decay forgets the initialisation early in short runs (the rule of TensorFlow's
        ExponentialMovingAverage with `num_updates`). Batch-norm statistics are averaged too: the current
        ones do not fit the averaged weights.
        """
        weight = 1 - min(decay, (1 + updates) / (10 + updates))
        if self._floats[0]:
            torch._foreach_lerp_(*self._floats, weight)
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)


def _sides(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [kept for kept, _ in pairs], [current for _, current in pairs]
