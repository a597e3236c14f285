"""Optimisers that compute their step for all weights in one kernel."""

import torch
from torch.optim import Optimizer

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def in_one_kernel(optimizer: Optimizer) -> Optimizer:
    """Adam and SGD in one kernel for all weights, unless set otherwise; the rates noted for the schedule.

    Adam's is 7 to 9 ms instead of 28 to 37 for 5.9 million weights on a CPU. Such a kernel also leaves out by
    itself a step that is not finite (training/poison.py). Set here, not in the constructor, after which
    Lightning would not clip gradients under autocast.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        if type(optimizer) in _FUSED and not group["differentiable"]:
            group["fused"] = group["foreach"] is None and group["fused"] is not False
        if type(optimizer) is torch.optim.SGD and group["fused"] and group["momentum"]:
            # the kernel's first step would leave memory as it found it, where it is left out
            group["fused"] = group["dampening"] == 0
            for p in group["params"] if group["fused"] else ():
                optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
    return optimizer
