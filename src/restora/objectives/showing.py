"""Whether a discriminator can be trained with the photos, patches and batches of a run."""

import copy

import torch
from torch import Tensor

from restora.networks.base import check_weights
from restora.networks.discriminators import Discriminator
from restora.objectives.base import Setting


def check_discriminator(
    discriminator: Discriminator,
    channels: int,
    setting: Setting,
    *,
    key: str,
    shown: str = "photos",
    who: str = "",
) -> None:
    """Raises ValueError if it takes another number of channels, or as `check_patches` does.

    `shown` is what has the channels, `key` that of the discriminator in the configuration.
    """
    name = type(discriminator).__name__
    if not hasattr(discriminator, "in_channels"):
        raise ValueError(
            f"{key}: {name} has no in_channels: set it in the constructor, such as self.in_channels = 3"
        )
    if discriminator.in_channels != channels:
        raise ValueError(
            f"the {who + ' ' if who else ''}discriminator takes {discriminator.in_channels} channels and is "
            f"shown {shown} of {channels}: set {key}.in_channels={channels}"
        )
    check_patches(discriminator, setting, who=who)


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


def check_levels(discriminator: Discriminator, setting: Setting) -> None:
    """Raises ValueError for a discriminator without features below its logits."""
    found = _tried(discriminator, setting.batch_size or 2, setting.patch_size)
    if isinstance(found, list) and len(found) < 2:
        raise ValueError(
            f"feature_matching compares features, and {type(discriminator).__name__} has logits alone: let "
            "its _features return those of its layers before them, or leave the objective out"
        )


def _has_several_values(discriminator: Discriminator, batch_size: int, size: int) -> bool:
    """Whether every normalisation of a training step has more than one value per channel."""
    found = _tried(discriminator, batch_size, size)
    if isinstance(found, Exception):
        return "Expected more than 1" not in str(found)  # anything else is of another cause
    if not isinstance(found, list) or not all(isinstance(each, Tensor) for each in found):
        raise ValueError(
            f"{type(discriminator).__name__}._features returned a {type(found).__name__}: expected a list of "
            "tensors, the logits last"
        )
    return True


def _tried(discriminator: Discriminator, batch_size: int, size: int) -> list[Tensor] | Exception:
    """What its `features` return or raise for a training batch. Raises ValueError for empty weights."""
    check_weights(discriminator, f"the discriminator {type(discriminator).__name__}'s ")
    probe = copy.deepcopy(discriminator).to("meta").train()  # no pixels, no statistics
    try:
        return probe.features(torch.empty(batch_size, discriminator.in_channels, size, size, device="meta"))
    except (ValueError, RuntimeError) as error:
        return error
