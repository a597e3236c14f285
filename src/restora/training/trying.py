"""Tries a network and a degradation of the user's own on a small batch before a training, to find mistakes.

Those of this package keep the contract (its tests see to that), and the largest networks would take seconds.
The network is tried at an odd size, as photos have, not at that of the training patches. It runs on the meta
device, where nothing is computed, and in memory only if it cannot run there.

Legend: B samples, C channels, H height, W width, K condition channels.
"""

from collections.abc import Callable

import torch

from restora.config import ConfigError
from restora.data.module import PhotoData
from restora.degradations.base import Degradation, check_values
from restora.keyed import KeyedGenerator, sample_key
from restora.networks.base import MULTIPLES, Network
from restora.photos.reading import channel_count

_MULTIPLES = (2, 4, 8, 16, 32, 64)


def _is_ours(part: object) -> bool:
    return type(part).__module__.startswith("restora.")


def _all_ours(degradation: Degradation) -> bool:
    return _is_ours(degradation) and all(_all_ours(part) for part in degradation.parts)


def try_network(network: Network, data: PhotoData, build: Callable[[], Network]) -> None:
    """Raises `ConfigError` for a network on the meta device that does not keep its contract at odd sizes.

    `build` makes the same network in memory.
    """
    if _is_ours(network):
        return
    side = min(stage.patch_size for stage in data.stages) // data.scale | 1
    try:
        _run(network, side, side + 2)
        return
    except Exception:  # of the meta device or of the network; which one is seen below
        network = build()
    try:
        _run(network, side, side + 2)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, ValueError):
            size = (2, network.in_channels, side, side + 2)
            reason = f"{type(network).__name__} cannot compute an input of {size} ({reason}): {MULTIPLES}"
        if (fits := _multiple(network)) is not None:
            reason = reason.removesuffix(MULTIPLES)
            reason += f"its sides have to be multiples of {fits}: set size_multiple = {fits} in the class"
        raise ConfigError(f"network: {reason}") from error


def _run(network: Network, height: int, width: int) -> None:
    """One forward pass of a (2,C,H,W) input, in evaluation mode."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("meta"))
    training, planes = network.training, network.condition_channels
    x = torch.zeros(2, network.in_channels, height, width, device=device)  # (B,C,H,W)
    condition = x.new_zeros(2, planes, height, width) if planes else None  # (B,K,H,W)
    try:
        with torch.no_grad():
            network.eval()(x, condition)
    finally:
        network.train(training)


def _multiple(network: Network) -> int | None:
    """The smallest power of two whose multiples it takes; None if it takes none of those tried."""
    for number in _MULTIPLES:
        try:
            _run(network, 3 * number, 5 * number)
        except (ValueError, RuntimeError):
            continue
        return number
    return None


def try_degradation(data: PhotoData) -> None:
    """Raises `ConfigError` for a degradation that does not keep its contract on a batch of random pixels."""
    if data.comes_degraded or _all_ours(data.degradation):
        return
    side, name = min(stage.patch_size for stage in data.stages), type(data.degradation).__name__
    generator = torch.Generator().manual_seed(data.seed)
    clean = torch.rand(2, channel_count(data.channels), side, side, generator=generator)  # (B,C,H,W)
    before = clean.clone()
    keys = torch.tensor([sample_key(data.seed, number) for number in range(2)])
    try:
        check_values(data.degradation, data.degradation(clean, KeyedGenerator(keys)).image)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not torch.equal(clean, before):
        raise ConfigError(
            f"the degradation {name} changes the clean photos that it gets: let apply work on a copy, "
            "clean.clone()"
        )
