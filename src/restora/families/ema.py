"""Exponential moving average of a network's weights.

The average is a second network beside the first, so a checkpoint holds both by name, a resumed run continues
both, and validation, export and evaluation pick one without any swapping.
"""

import copy

import torch
from torch import nn

from restora.networks.base import Network


def averaged_copy(network: Network) -> Network:
    """A copy that no optimiser sees, in evaluation mode."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, *, decay: float, updates: int) -> None:
    """`average <- d * average + (1 - d) * network`, with d larger in later steps.

    `d = min(decay, (1 + t) / (10 + t))` after t = `updates` steps.

    The growing decay forgets the initialisation early in short runs (the rule of TensorFlow's
    ExponentialMovingAverage with `num_updates`). Batch-norm statistics are averaged
    too: those of the moment do not fit the averaged weights.
    """
    weight = 1 - min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(current, weight)
        else:
            kept.copy_(current)
