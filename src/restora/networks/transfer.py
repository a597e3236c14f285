"""Transfers weights between networks: by name where the shapes agree, with a report of the rest.

Enters: tensors under a network's own names (`weights.fitted`), of the same architecture or of a variant with
another scale, channel count or depth. Leaves: the transferred tensors, and the reason for each other one. It
also defines name patterns: a name or a shell pattern, for what it matches and all names below it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from restora.networks.base import Network
from restora.networks.weights import HARMLESS

_SHOWN = 3


@dataclass(frozen=True)
class Transfer:
    """The tensors that a network takes from a source.

    `taken` is by the network's names; `other_shape` name -> (source's shape, network's shape); `missing` are
    names that the source lacks, `unused` that the network lacks, `skipped` that were left out on request.
    """

    taken: Mapping[str, Tensor]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    unused: Sequence[str] = ()
    skipped: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether only skipped names differ."""
        return not (self.other_shape or self.missing or self.unused)

    @property
    def total(self) -> int:
        """How many tensors the network has."""
        return len(self.taken) + len(self.other_shape) + len(self.missing) + len(self.skipped)

    def reasons(self) -> list[str]:
        """One line for each kind of tensors that were not taken."""
        shapes = [f"{name} is {there} there, {here} here" for name, (there, here) in self.other_shape.items()]
        kinds = (
            ("of another shape", shapes),
            ("not in the source", self.missing),
            ("only in the source", self.unused),
            ("skipped", self.skipped),
        )
        return [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names]


def transfer(network: Network, state: Mapping[str, Tensor], *, skip: Sequence[str] = ()) -> Transfer:
    """The tensors of `state` that `network` can take; nothing is copied.

    Raises ValueError for a pattern of `skip` that matches no name.
    """
    own = network.state_dict()
    silent = (*HARMLESS, *network.computed_names)
    counted = [name for name in own if name.rpartition(".")[2] not in silent]
    skipped = matching(own, skip, where="init.skip")
    both = [name for name in counted if name in state and name not in skipped]
    return Transfer(
        taken={name: state[name] for name in both if state[name].shape == own[name].shape},
        other_shape={
            name: (tuple(state[name].shape), tuple(own[name].shape))
            for name in both
            if state[name].shape != own[name].shape
        },
        missing=[name for name in counted if name not in state and name not in skipped],
        unused=[name for name in state if name not in own and name.rpartition(".")[2] not in silent],
        skipped=[name for name in counted if name in skipped],
    )


def matching(names: Iterable[str], patterns: Sequence[str], *, where: str) -> set[str]:
    """The names that match any of the patterns (`body.*.weight`), and all names below them (`tail`, `*.qkv`).

    Raises ValueError, listing the names, for a pattern that matches none; `where` is the pattern's key.
    """
    names, found = list(names), set()
    for pattern in patterns:
        fits = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not fits:
            there = listed(_beside(names, pattern), at_most=12)
            raise ValueError(f"{where}: {pattern!r} fits none of the network's names: {there}")
        found |= fits
    return found


def _beside(names: Sequence[str], pattern: str) -> list[str]:
    """The names at the place where a pattern fits nothing: `model.0`, `model.2` for `model.1.bias`."""

    def below(prefix: str) -> list[str]:
        return [*dict.fromkeys(n[len(prefix) :].partition(".")[0] for n in names if n.startswith(prefix))]

    prefix, parts = "", pattern.split(".")
    while (there := below(prefix)) and (len(there) == 1 or (parts and parts[0] in there)):
        part = parts.pop(0) if parts and parts[0] in there else there[0]
        if not below(f"{prefix}{part}."):
            break
        prefix += f"{part}."
    return [prefix + each for each in there]


def listed(names: Sequence[str], *, at_most: int = _SHOWN) -> str:
    """The first of the names, and how many more there are."""
    more = f", and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
