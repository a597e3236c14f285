"""Tries parts of the user's own before a training, networks and degradations on a small batch.

Those of this package keep the contract (its tests see to that), and the largest networks would take seconds.
The network is tried at an odd size, as photos have, not at that of the training patches. It runs on the meta
device, where nothing is computed, and in memory only if it cannot run there.

Legend: B samples, C channels, H height, W width, K condition channels.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

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


def _each(degradation: Degradation) -> Iterator[Degradation]:
    """A degradation and all that it is made of."""
    yield degradation
    for part in degradation.parts:
        yield from _each(part)


def _check_channels(degradation: Degradation, channels: int) -> None:
    """Raises `ConfigError` for a degradation that does not go with the photos' number of channels."""
    for part in _each(degradation):
        if part.needs_colour and channels != 3:
            raise ConfigError(
                f"the degradation {type(part).__name__} needs photos in colour, these have {channels} "
                "channel(s): set data.channels=rgb and network.in_channels=3, or choose another degradation"
            )
    if (given := degradation.out_channels or channels) != channels:
        raise ConfigError(
            f"the degradation gives {given} channel(s), the photos have {channels}, and a network is trained "
            f"with as many in as out: set degradation.channels={channels}"
        )


def try_network(network: Network, data: PhotoData, build: Callable[[], Network]) -> None:
    """Raises `ConfigError` for a network on the meta device that does not keep its contract at odd sizes.

    `build` makes the same network in memory.
    """
    if _is_ours(network):
        return
    _check_weights(network)
    side = min(stage.patch_size for stage in data.stages) // data.scale | 1
    whole = side + -side % network.size_multiple
    try:
        _run(network, side, side + 2)
        _run(network, whole, whole)  # at the odd size it may be given a padded copy
        return
    except Exception:  # of the meta device or of the network; which one is seen below
        network = build()
    try:
        _run(network, side, side + 2)
        _run(network, whole, whole)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, ValueError):
            size = (2, network.in_channels, side, side + 2)
            reason = f"{type(network).__name__} cannot compute an input of {size} ({reason}): {MULTIPLES}"
        if (fits := _multiple(network)) is not None:
            reason = reason.removesuffix(MULTIPLES)
            reason += f"its sides have to be multiples of {fits}: set size_multiple = {fits} in the class"
        raise ConfigError(f"network: {reason}") from error


def _check_weights(network: Network) -> None:
    """Raises `ConfigError` for weights that would not be trained, or not be stored."""
    name, registered = type(network).__name__, set(network.modules())
    for path, module in network.named_modules():
        for key, value in vars(module).items():
            if key in ("_modules", "_parameters", "_buffers") or not isinstance(value, dict | list | tuple):
                continue
            held = value.values() if isinstance(value, dict) else value
            if any(isinstance(each, nn.Module) and each not in registered for each in held):
                raise ConfigError(
                    f"network: {name} keeps layers in the {type(value).__name__} "
                    f"{'.'.join(filter(None, (path, key)))}, where they are neither trained nor stored: use "
                    f"nn.Module{'Dict' if isinstance(value, dict) else 'List'}"
                )
    if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        raise ConfigError(f"network: {name} has layers without a size (nn.Lazy…): give their channels")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            f"network: {name} has no parameters to train: make its layers attributes in the constructor"
        )


def _run(network: Network, height: int, width: int) -> None:
    """One forward pass of a (2,C,H,W) input, in evaluation mode."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("meta"))
    training, planes = network.training, network.condition_channels
    x = torch.zeros(2, network.in_channels, height, width, device=device)  # (B,C,H,W)
    condition = x.new_zeros(2, planes, height, width) if planes else None  # (B,K,H,W)
    version = x._version
    try:
        with torch.no_grad():
            network.eval()(x, condition)
    finally:
        network.train(training)
    if x._version != version:
        raise ValueError(
            f"{type(network).__name__} changes the photos that it gets, which are compared with later: let "
            "restore work on a copy (x = x - 0.5 instead of x -= 0.5)"
        )


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
    if data.comes_degraded:
        return
    channels = channel_count(data.channels)
    _check_channels(data.degradation, channels)
    if _all_ours(data.degradation):
        return
    side, name = min(stage.patch_size for stage in data.stages), type(data.degradation).__name__
    generator = torch.Generator().manual_seed(data.seed)
    clean = torch.rand(2, channels, side, side, generator=generator)  # (B,C,H,W)
    before = clean.clone()
    keys = torch.tensor([sample_key(data.seed, number) for number in range(2)])
    try:
        degraded, again = (data.degradation(clean, KeyedGenerator(keys)).image for _ in range(2))
        check_values(data.degradation, degraded)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not torch.equal(clean, before):
        raise ConfigError(
            f"the degradation {name} changes the clean photos that it gets: let apply work on a copy, "
            "clean.clone()"
        )
    if not torch.equal(degraded, again):
        raise ConfigError(
            f"the degradation {name} gives other photos for the same keys, so that no two runs are validated "
            "on the same ones: draw all random numbers from the generator of sample, or in apply from "
            "KeyedGenerator(params[key]) with keys that sample took by generator.next_keys()"
        )


def try_schedule(schedule: Callable[[float], float]) -> None:
    """Raises `ConfigError` for a schedule that gives no factor at the start or the end of a training."""
    for share in (0.0, 1.0):
        try:
            factor = float(schedule(share))
        except Exception as error:
            name = getattr(schedule, "__name__", type(schedule).__name__)
            raise ConfigError(
                f"family.schedule: {name} fails when it is called with the share of the training done, "
                f"{share:g} ({type(error).__name__}: {error}): expected a factor of the rate"
            ) from error
        if not math.isfinite(factor) or factor < 0:
            raise ConfigError(
                f"family.schedule: the learning rate is multiplied by {factor} when a share of {share:g} is "
                "done; expected 0 or more"
            )
