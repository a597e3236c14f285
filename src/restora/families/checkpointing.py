"""Activation checkpointing: blocks keep only their input and are recomputed in the backward pass.

T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016. On a CPU with
patches of 128, NAFNet of 14 blocks keeps 24 MB instead of 152 at 0.76 of the speed, Restormer of 8 blocks 55
MB instead of 634 at 0.80. Batch norms inside a block update their running statistics twice for each batch.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(network: nn.Module) -> int:
    """Makes the outermost repeated blocks of a network recompute; returns how many they are.

    Outputs and parameter names stay the same.

    Raises ValueError for a network without such blocks (a plain stack of convolutions).
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ValueError(
            f"activation_checkpointing=true: {type(network).__name__} has no repeated blocks to recompute; "
            "set activation_checkpointing=false"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)
    return len(blocks)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The outermost children of a `Sequential` or `ModuleList` whose class is not torch's own."""
    found = []
    for child in module.children():
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        if (
            listed
            and not type(child).__module__.startswith("torch.")
            and any(True for _ in child.parameters())
        ):
            found.append(child)
        else:
            found += blocks_of(child)
    return found


def _recomputed(forward: Any, *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    return checkpoint(forward, *arguments, use_reentrant=False)
