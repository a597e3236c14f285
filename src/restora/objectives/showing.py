"""Whether a discriminator can be trained with the patches and batches of a run."""

import copy

import torch

from restora.networks.discriminators import Discriminator
from restora.objectives.base import Setting


def check_patches(discriminator: Discriminator, setting: Setting, *, who: str = "") -> None:
    """Raises ValueError if patches are too small, or batches, for a batch norm to have more than one value.

    `who` names the discriminator if there are several.
    """
    name, size, least = type(discriminator).__name__, setting.patch_size, discriminator.minimum_size
    who = f"the {who} discriminator ({name})" if who else name
    if size < least:
        raise ValueError(
            f"{who} needs photos of at least {least}x{least}, the patches are {size}: set "
            f"data.patch_size={least} or take another discriminator"
        )
    if setting.batch_size is None or _has_several_values(discriminator, setting.batch_size, size):
        return
    raise ValueError(
        f"{who} normalises over batches and places, and a batch of {setting.batch_size} with patches of "
        f"{size}x{size} leaves it a single value: raise data.batch_size or data.patch_size, or take "
        "discriminator=patch"
    )


def _has_several_values(discriminator: Discriminator, batch_size: int, size: int) -> bool:
    """Whether every normalisation of a training step has more than one value per channel."""
    probe = copy.deepcopy(discriminator).to("meta").train()  # no pixels, no statistics
    try:
        probe(torch.empty(batch_size, discriminator.in_channels, size, size, device="meta"))
    except (ValueError, RuntimeError) as error:
        return "Expected more than 1" not in str(error)  # anything else is of another cause
    return True
