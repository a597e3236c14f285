"""Recognises the network of a weights file by the names and shapes in it.

Every registered network that can infer its constructor's arguments from weights (`infer_arguments`) is tried,
under every wrapping prefix; it matches if all its names and shapes agree. If several networks match, the
error shows the user what to type to choose one. Weights under other names (a re-implementation) are accepted
if the order, shapes and roles of all tensors are unambiguous: for a plain stack of convolutions under another
prefix or in other modules, and for any network of its default size.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from restora import registry
from restora.networks.base import Network
from restora.networks.ircnn import IRCNN, LEVELS
from restora.networks.meta import on_meta
from restora.networks.weights import (
    HARMLESS,
    WeightsError,
    as_overrides,
    check_finite,
    fitted,
    inferred,
    misfits,
    prefixes,
    read_tensors,
    under,
)

_NAMED = "--network NAME of restore, export and serve, network=NAME of evaluate and in Python"


class UnknownWeights(WeightsError):
    """No registered network fits."""


@dataclass(frozen=True)
class Recognised:
    """A network with the weights of a file.

    It has the registered `name`, the inferred constructor's `arguments` and a message for the user, `said`.
    """

    name: str
    network: Network
    arguments: Mapping[str, Any]
    said: str


@dataclass(frozen=True)
class Candidate:
    """A network that fits all tensors under `prefix`; `state` holds them under its own names."""

    name: str
    cls: type[Network]
    arguments: Mapping[str, Any]
    prefix: str
    state: Mapping[str, Tensor]
    by_order: bool = False


def recognise(path: str | Path, *, by_order: bool = True) -> Recognised:
    """Finds the network of the weights in the file at `path`, and loads them.

    `by_order` also tries weights under other names, which takes seconds.

    Raises WeightsError if no registered network fits, or several do; the message lists those.
    """
    path = Path(path)
    tensors = read_tensors(path)
    found = list(candidates(tensors) if by_order else _by_names(tensors))
    if not found and IRCNN.infer_arguments(under(tensors, "0")) is not None:
        raise WeightsError(
            f"{path} holds IRCNN's weights for {len(LEVELS)} noise levels, not a model: use them as the "
            f"denoiser of a method (method:pnp_hqs --denoiser {path})"
        )
    if not found:
        raise UnknownWeights(
            f"no network of restora recognises the weights in {path}, whose first names are "
            f"{', '.join(list(tensors)[:4])}: name it, if it is one that `restora networks` lists ({_NAMED})"
        )
    photos = [each for each in found if each.arguments.get("in_channels", 3) in (1, 3)]
    by_name = {candidate.name: candidate for candidate in photos or found}
    if len(by_name) > 1:
        raise WeightsError(
            f"the weights in {path} fit more than one network, {' and '.join(by_name)}: name one ({_NAMED})"
        )
    best = max(photos or found, key=lambda each: ("ema" in each.prefix.lower(), -len(each.prefix)))
    check_finite(best.state, str(path))
    network = best.cls(**best.arguments)
    network.load_state_dict(dict(best.state), strict=False)
    wrapped = f", under the prefix {best.prefix!r}" if best.prefix and not best.by_order else ""
    how = " (names differ: read by the order, shapes and roles of its tensors)" if best.by_order else ""
    said = f"{path} holds {best.cls.__name__}: {as_overrides(best.arguments)}{wrapped}{how}"
    if network.scale > 1 and "scale" not in best.arguments:
        said += f"; its scale is not in the weights: {network.scale}, or set --network {best.name},scale=N"
    return Recognised(best.name, network, best.arguments, said)


def candidates(tensors: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """The networks that fit all tensors of a file: by names, else by order and shapes."""
    named = list(_by_names(tensors))
    yield from named or _by_order(tensors)


def _by_names(tensors: Mapping[str, Tensor]) -> Iterator[Candidate]:
    for prefix in _wrappers(tensors):
        state = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        for name, cls in registry.classes("network").items():
            arguments = inferred(cls, state)
            network = None if arguments is None else _on_meta(cls, arguments)
            if network is not None and arguments is not None:
                own = fitted(network, state)
                if not misfits(network, own):
                    yield Candidate(name, cls, arguments, prefix, own)


def _by_order(tensors: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """Networks whose tensors match those of the file in order, by role (weight, bias, running mean ...) and
    shape."""
    for prefix in _wrappers(tensors):
        given = [
            (name, value)
            for name, value in tensors.items()
            if name.startswith(prefix) and name.rpartition(".")[2] not in HARMLESS
        ]
        stack = _as_plain_stack(given)
        found = []
        for name, cls in registry.classes("network").items():
            for arguments in [{}] if stack is None else [inferred(cls, stack)]:
                network = None if arguments is None else _on_meta(cls, arguments) if stack else _usual(name)
                if network is None or arguments is None:
                    continue
                own = [key for key in network.state_dict() if key.rpartition(".")[2] not in HARMLESS]
                shapes = network.state_dict()
                if len(own) == len(given) and all(
                    _role(key) == _role(other) and shapes[key].shape == value.shape
                    for key, (other, value) in zip(own, given, strict=True)
                ):
                    state = dict(zip(own, (value for _, value in given), strict=True))
                    found.append(Candidate(name, cls, arguments, prefix, state, by_order=True))
                    break
        if found:
            yield from found
            return


def _wrappers(tensors: Mapping[str, Tensor]) -> list[str]:
    """Prefixes that may wrap a whole network: each covers at least a third of the tensors (files may also
    hold optimiser states and losses)."""
    counted = ((prefix, sum(name.startswith(prefix) for name in tensors)) for prefix in prefixes(tensors))
    return [prefix for prefix, count in counted if 3 * count >= len(tensors)]


@functools.cache
def _usual(name: str) -> Network | None:
    """A network of its default size on the meta device."""
    return _on_meta(registry.find("network", name), {})


def _as_plain_stack(given: list[tuple[str, Tensor]]) -> dict[str, Tensor] | None:
    """The tensors of a chain of convolutions, with or without batch norms, under DnCNN's names; None for
    anything else."""
    state: dict[str, Tensor] = {}
    position, channels, normed = -2, None, False
    for name, value in given:
        role = _role(name)
        if value.ndim == 4 and role == "weight":
            if channels is not None and value.shape[1] != channels:
                return None
            position += 3 if normed else 2
            channels, normed = value.shape[0], False
            state[f"model.{max(position, 0)}.weight"] = value
            position = max(position, 0)
        elif value.ndim == 1 and channels == value.numel():
            if role == "weight":
                normed = True
            place = position + 1 if normed else position
            state[f"model.{place}.{role}"] = value
        else:
            return None
    return state or None


def _role(name: str) -> str:
    return name.rpartition(".")[2]


def _on_meta(cls: type[Network], arguments: Mapping[str, Any]) -> Network | None:
    try:
        return on_meta(lambda: cls(**arguments))
    except (TypeError, ValueError, RuntimeError):
        return None
