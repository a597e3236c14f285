"""What a network costs: parameters, and multiply-accumulates counted on the meta device."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restora.networks.base import Network


def count_parameters(network: nn.Module) -> int:
    """Numbers in its parameters, trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: Network, *, height: int = 256, width: int = 256) -> int | None:
    """Multiply-accumulates of one forward pass on a (1,C,height,width) input.

    Those of convolutions and matrix products.

    Half of what torch's FlopCounterMode counts. None where the network cannot run on the meta device.
    """
    ghost = copy.deepcopy(network).to("meta").eval()
    x = torch.empty(1, network.in_channels, height, width, device="meta")
    condition = None
    if network.condition_channels:
        condition = torch.empty(1, network.condition_channels, height, width, device="meta")
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            ghost(x, condition)
    except (NotImplementedError, RuntimeError):
        return None
    return counter.get_total_flops() // 2
