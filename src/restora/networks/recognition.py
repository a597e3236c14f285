"""Which network a weights file belongs to: found from the names and shapes in it.

Every registered network that can tell its constructor's arguments from weights (`infer_arguments`) is asked,
under every wrapping; one whose names and shapes all agree is the answer. Where several agree the user has to
choose, and is shown what to type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restora import registry
from restora.networks.base import Network
from restora.networks.weights import (
    WeightsError,
    as_overrides,
    fitted,
    misfits,
    prefixes,
    read_tensors,
)


@dataclass(frozen=True)
class Recognised:
    """A network with the weights of a file; its registered `name`, the constructor's arguments that the
    weights told, and what to say to the user."""

    name: str
    network: Network
    arguments: Mapping[str, Any]
    said: str


@dataclass(frozen=True)
class _Candidate:
    name: str
    cls: type[Network]
    arguments: Mapping[str, Any]
    prefix: str
    state: Mapping[str, Tensor]


def recognise(path: str | Path) -> Recognised:
    """The network that the weights in the file at `path` are of, with those weights.

    Raises WeightsError where no registered network fits, or several do: with what would.
    """
    path = Path(path)
    tensors = read_tensors(path)
    candidates = list(_candidates(tensors))
    names = sorted({candidate.name for candidate in candidates})
    if not candidates:
        raise WeightsError(
            f"no network of restora recognises the weights in {path}, whose first names are "
            f"{', '.join(list(tensors)[:4])}: name the network (network=NAME, --network NAME; `restora "
            "networks` lists them)"
        )
    if len(names) > 1:
        listed = " or ".join(
            f"network={candidate.name} {as_overrides(candidate.arguments)}".strip()
            for candidate in {candidate.name: candidate for candidate in candidates}.values()
        )
        raise WeightsError(f"the weights in {path} fit more than one network: set {listed}")
    best = max(candidates, key=lambda found: ("ema" in found.prefix.lower(), -len(found.prefix)))
    network = best.cls(**best.arguments)
    network.load_state_dict(dict(best.state), strict=False)
    described = as_overrides(best.arguments)
    wrapped = f", under the prefix {best.prefix!r}" if best.prefix else ""
    return Recognised(
        best.name, network, best.arguments, f"{path} holds {best.cls.__name__}: {described}{wrapped}"
    )


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[_Candidate]:
    """The networks that fit the tensors whole, under the prefix where they do."""
    for prefix in prefixes(tensors):
        state = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        for name, cls in registry.classes("network").items():
            arguments = inferred(cls, state)
            if arguments is None:
                continue
            try:
                with torch.device("meta"):
                    network: Network = cls(**arguments)
            except (TypeError, ValueError, RuntimeError):
                continue
            own = fitted(network, state)
            if not misfits(network, own):
                yield _Candidate(name, cls, arguments, prefix, own)


def inferred(cls: type[Network], state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What the class reads off the weights; None where they are another's, or of a class that cannot tell."""
    infer = getattr(cls, "infer_arguments", None)
    if infer is None:
        return None
    try:
        found: dict[str, Any] | None = infer(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # names alike, shapes of something else
        return None
    return found
