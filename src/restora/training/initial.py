"""Weights to start from: `init=SOURCE` of a run.

Enters: any source of a model (folder, run, checkpoint, weights file) and a network. Leaves: the network and
its average with all weights of the source that fit, and a report of the others. Note: a resumed run does not
read the source again, which may no longer exist.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from restora import registry
from restora.arguments import shown
from restora.artifact.model_folder import WEIGHTS
from restora.artifact.sources import Loaded, open_source
from restora.config import ConfigError
from restora.families.base import Family
from restora.networks.base import Network
from restora.networks.transfer import Transfer, listed, matching, transfer
from restora.networks.weights import (
    WeightsError,
    check_finite,
    fitted,
    inferred,
    read_tensors,
    suggestion,
    unwrap,
)

_FEW = 0.1
"""The share of a network's weights below which a source hardly helps: the biases of a few layers, say."""


@dataclass(frozen=True)
class Initial:
    """The weights that a network takes from a source. `file` holds them; `hints` are warnings.

    `fills`: they are all its parameters. `otherwise` is what the source computes with the same weights in
    another way: argument -> (there, here).
    """

    source: str
    file: Path
    transfer: Transfer
    hints: tuple[str, ...] = ()
    otherwise: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    fills: bool = False

    @property
    def whole(self) -> bool:
        """Whether all weights of the network are the source's."""
        return len(self.transfer.taken) == self.transfer.total

    def give(self, family: Family) -> None:
        """Copies the weights into the network of a family, and the whole network into its average."""
        family.network.load_state_dict(dict(self.transfer.taken), strict=False)
        if family.ema is not None:
            family.ema.load_state_dict(family.network.state_dict())

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        found = self.transfer
        shapes = {name: [list(there), list(here)] for name, (there, here) in found.other_shape.items()}
        return {
            "source": self.source,
            "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest(),
            "taken": len(found.taken),
            "of": found.total,
            "other_shape": shapes,
            "missing": list(found.missing),
            "unused": list(found.unused),
            "skipped": list(found.skipped),
            "other_arguments": {name: list(values) for name, values in self.otherwise.items()},
        }

    def _other_arguments(self) -> list[str]:
        """The arguments that differ; how to compute what the source does, if its weights fit either way."""
        if not self.otherwise:
            return []
        other = [f"{name} is {shown(a)} there, {shown(b)} here" for name, (a, b) in self.otherwise.items()]
        line = f"other arguments: {', '.join(other)}"
        if self.transfer.other_shape or not self.fills or "network" in self.otherwise:
            return [line]
        as_there = [f"network.{name}={shown(a)}" for name, (a, _) in self.otherwise.items()]
        return [f"{line} (as there: {' '.join(as_there)})"]

    def lines(self) -> list[str]:
        """Messages for the user."""
        found = self.transfer
        weights = sum(value.numel() for value in found.taken.values())
        head = f"starts from {self.source}: {len(found.taken)} of {found.total} tensors, {weights:,} numbers"
        reasons = [*found.reasons(), *self._other_arguments()]
        return [head, *(f"  {reason}" for reason in reasons), *self.hints]


def check_stage(config: DictConfig) -> None:
    """Raises `ConfigError` for a recipe that starts from another recipe's run if no source is given."""
    if config.init.stage is not None and config.init.source is None:
        raise ConfigError(
            "this recipe starts from a trained network: set init=RUN, a run of "
            f"experiments={config.init.stage} (or any source of such a model), or init.stage=null to start "
            "from nothing"
        )


def initial_weights(config: DictConfig, network: Network) -> Initial | None:
    """The weights that `init` selects for the network, which may be on the meta device; None without `init`.

    Raises `ConfigError` for a source with no fitting weights, with `init.strict` for weights that do not fit,
    and with adapters, which freeze the network, for weights that would stay as they are initialised;
    `WeightsError` for weights that are not finite.
    """
    options = config.init
    if options.source is None:
        if options.skip or options.strict:
            raise ConfigError("init.skip and init.strict say how a source is read: set init=SOURCE too")
        return None
    source = str(options.source)
    state, file, loaded = _weights(source, network)
    found = transfer(network, state, skip=list(options.skip))
    if not found.taken and len(found.skipped) == found.total:
        raise ConfigError(f"init.skip={list(options.skip)} leaves nothing to take from init={source}")
    if not found.taken:
        raise ConfigError(
            f"init={source}: nothing in it fits {type(network).__name__} ({'; '.join(found.reasons())}); "
            f"{suggestion(type(network), state)}: choose that network, or a source of this one"
        )
    check_finite(found.taken, f"init={source}")
    if options.strict and not found.complete:
        raise ConfigError(
            f"init={source} does not fit {type(network).__name__} whole, as init.strict=true asks: "
            f"{'; '.join(found.reasons())}"
        )
    untaken = [name for name, _ in network.named_parameters() if name not in found.taken]
    if len(found.taken) < found.total and OmegaConf.select(config, "family.adapters") is not None:
        raise ConfigError(
            f"family.adapters freezes the network, also what does not come from init={source} "
            f"({'; '.join(found.reasons())}): take a source that fits whole, or family.adapters=null"
        )
    hints = [_few_fit(network, found, state), _frozen(config, network, untaken)]
    otherwise = _otherwise(config, network, loaded, state)
    return Initial(source, file, found, tuple(hint for hint in hints if hint), otherwise, not untaken)


def _frozen(config: DictConfig, network: Network, untaken: Sequence[str]) -> str:
    """A warning if weights are frozen that do not come from the source, else nothing."""
    patterns = list(OmegaConf.select(config, "family.freeze") or ())
    frozen = matching((name for name, _ in network.named_parameters()), patterns, where="family.freeze")
    names = [name for name in untaken if name in frozen]
    return f"family.freeze keeps as initialised, not from the source: {listed(names)}" if names else ""


def _otherwise(
    config: DictConfig, network: Network, loaded: Loaded | None, state: dict[str, Tensor]
) -> dict[str, tuple[Any, Any]]:
    """The arguments of the source that differ from the network's: name -> (source's, network's).

    Weights alone have those that can be inferred from them.
    """
    if loaded is None:
        there = inferred(type(network), state) or {}
    elif type(loaded.network) is not type(network):
        return {"network": (loaded.name, registry.name_of(type(network)))}
    else:
        there = _defaults(type(network)) | dict(loaded.arguments)
    here: Any = OmegaConf.to_container(config.network, resolve=True)
    return {
        name: (_plain(there[name]), value)
        for name, value in (_defaults(type(network)) | here).items()
        if name in there and _plain(there[name]) != _plain(value)
    }


def _defaults(kind: type[Network]) -> dict[str, Any]:
    """The constructor's arguments that have defaults, which files of older versions may leave out."""
    parameters = inspect.signature(kind.__init__).parameters
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _few_fit(network: Network, found: Transfer, state: dict[str, Tensor]) -> str:
    """A warning if hardly any weight of the network comes from the source, else nothing."""
    taken = sum(value.numel() for value in found.taken.values())
    chosen = {*found.taken, *found.other_shape, *found.missing}  # without those skipped on request
    wanted = sum(value.numel() for name, value in network.state_dict().items() if name in chosen)
    if taken >= _FEW * wanted:
        return ""
    return (
        f"the network starts almost from scratch, as hardly any of these weights fit it: "
        f"{suggestion(type(network), state)}"
    )


def _weights(source: str, network: Network) -> tuple[dict[str, Tensor], Path, Loaded | None]:
    """The tensors of a source, by the network's names where they match, and the file they come from.

    The model itself too, unless the file has weights alone.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix != ".ckpt":
        state = _named(path, network)
        if state.keys() & network.state_dict().keys():
            return state, path, None
    try:
        loaded = open_source(source)
    except WeightsError:
        if not path.is_file():
            raise
        return _named(path, network), path, None  # the caller lists their names
    file = Path(loaded.source)
    return loaded.network.state_dict(), file / WEIGHTS if file.is_dir() else file, loaded


def _named(path: Path, network: Network) -> dict[str, Tensor]:
    return fitted(network, unwrap(network, read_tensors(path)))
