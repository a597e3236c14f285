"""What was the first not finite in a step that is skipped, and what to do about it.

Enters: a batch, the weights and the flags of a step. Leaves: a phrase and an advice for messages.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from restora.types import Batch

_LOWER = "Lower family.optimizer.lr or set trainer.gradient_clip_val (family.gradient_clip of a GAN)"


def sums_of(batch: Batch) -> Tensor:
    """(2,): sums that are finite if the degraded photos are, and if what the network is to give is."""
    aim = batch.clean if batch.target is None else batch.target
    degraded = batch.degraded.detach().sum().float()
    return torch.stack((degraded, torch.zeros_like(degraded) if aim is None else aim.detach().sum().float()))


def first_of(loss: float, degraded: bool, aim: bool) -> str:
    """The first that was not finite: photos by their flags, else the loss or its outputs, else gradients."""
    found = [name for name, lost in (("degraded photos", degraded), ("clean photos or targets", aim)) if lost]
    return " and ".join(found) or ("loss" if not math.isfinite(loss) else "gradients")


def explained(first: str, network: nn.Module, batch: Batch | None, *, fresh: bool, folder: Path) -> str:
    """What was the first not finite, and how to fix it.

    `fresh`: no step has changed the weights yet. `batch` is one of those of the steps, to try the network on.
    """
    if "photos" in first:
        return (
            f"The {first} were not finite before the network saw them: look at the degradation and the "
            f"photos (restora preview poison={folder})"
        )
    if first == "loss" and batch is not None and not _gives_finite(network, batch):
        first = f"output of {type(network).__name__}"
    was = "were" if first == "gradients" else "was"
    if fresh:
        return (
            f"The {first} {was} the first not finite, with the weights that the training starts from, so the "
            "learning rate is not the cause: look for a division, a logarithm or a root in the network or in "
            "the loss"
        )
    return f"The {first} {was} the first not finite. {_LOWER}"


@torch.no_grad()
def _gives_finite(network: nn.Module, batch: Batch) -> bool:
    """Whether the network's output is finite; in evaluation mode, which needs no other process."""
    was_training = network.training
    try:
        return bool(network.eval()(batch.degraded, batch.condition).isfinite().all())
    finally:
        network.train(was_training)
