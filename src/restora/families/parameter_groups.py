"""Which parameters of a network are trained, and at which relative learning rate.

Enters: name patterns (`networks/transfer.py`) of frozen parameters, and of those with another learning rate.
Leaves: an optimiser with its groups. Note: a batch norm with frozen parameters keeps its running statistics
too, from the start; otherwise they would drift away from the frozen weights. (Lightning starts a training in
the modes that it finds, and sets each module back to its own after a validation.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from restora.networks.base import Network
from restora.networks.transfer import matching


class ParameterGroups:
    """Freezes the parameters that `freeze` names, and makes the optimiser of the others.

    The first pattern of `rate_factors` that matches a name applies. Raises ValueError for patterns that match
    nothing, for factors of 0 or less or of frozen parameters alone, and where nothing is left to train.
    """

    def __init__(self, network: Network, *, freeze: Sequence[str], rate_factors: Mapping[str, float]) -> None:
        self.network = network
        names = [name for name, _ in network.named_parameters()]
        frozen = matching(names, list(freeze), where="family.freeze")
        for name, parameter in network.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        if frozen and len(frozen) == len(names):
            raise ValueError(f"family.freeze={list(freeze)} leaves nothing to train: take a pattern out")
        self.factors: dict[str, float] = {}
        for pattern, factor in rate_factors.items():
            if not isinstance(factor, int | float) or factor <= 0:
                raise ValueError(
                    f"family.rate_factors.{pattern} must be a number above 0, got {factor}: what is not to "
                    f"learn is family.freeze=[{pattern}]"
                )
            chosen = matching(names, [pattern], where="family.rate_factors")
            if chosen <= frozen:
                raise ValueError(
                    f"family.rate_factors.{pattern}={factor} has no effect, as family.freeze freezes what it "
                    "names: take it out of one of them"
                )
            for name in chosen:
                self.factors.setdefault(name, float(factor))
        self._still: list[nn.Module] = [
            module
            for name, module in network.named_modules()
            if frozen and _is_frozen_norm(name, module, frozen)
        ]
        self.hold_statistics()

    def optimizer(self, make: Callable[[Any], Optimizer], partners: Sequence[nn.Parameter] = ()) -> Optimizer:
        """The optimiser of the trained parameters and of the objectives' parameters trained with them.

        Its groups are in order of their factors, 1 last. The objectives' parameters are a group of their own
        where the optimiser treats them differently (Muon).
        """
        trained = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        apart: list[dict[str, Any]] = []
        if partners and getattr(getattr(make, "func", make), "partners_apart", False):
            apart = [{"params": list(partners), "kind": "rest", "rate_factor": 1.0}]
        else:
            trained += [("", parameter) for parameter in partners]
        if not self.factors and not apart:
            return make(parameter for _, parameter in trained)
        by_factor: dict[float, list[nn.Parameter]] = {}
        for name, parameter in trained:
            by_factor.setdefault(self.factors.get(name, 1.0), []).append(parameter)
        order = sorted(by_factor, key=lambda factor: (factor == 1.0, factor))
        groups = [{"params": by_factor[factor], "rate_factor": factor} for factor in order]
        made = make([*groups, *apart])
        for group in made.param_groups:
            group["lr"] *= group["rate_factor"]
        return made

    def freeze_all(self) -> None:
        """Takes the whole network as frozen, as that of adapters is."""
        self._still = [module for module in self.network.modules() if isinstance(module, _BatchNorm)]
        self.hold_statistics()

    def hold_statistics(self) -> None:
        """Sets frozen batch norms to evaluation mode; called whenever the network is set to training mode."""
        for module in self._still:
            module.eval()


def base_rate(groups: Sequence[Mapping[str, Any]]) -> float:
    """The current learning rate of an optimiser's parameters without a factor; of Muon that of matrices."""
    usual = (group["lr"] for group in groups if group.get("rate_factor", 1.0) == 1.0)
    return float(next(usual, groups[-1]["lr"]))


def _is_frozen_norm(name: str, module: nn.Module, frozen: set[str]) -> bool:
    own = [f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)]
    return isinstance(module, _BatchNorm) and bool(own) and frozen.issuperset(own)


def check_same_parts(own: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Compares the parts that two states have weights of: the network, its average and the objectives.

    Raises ValueError where a checkpoint lacks a part of the family, has another, or has one of other weights,
    with the key to set.
    """
    here, there = {_part(name) for name in own}, {_part(name) for name in loaded}
    for parts, what in ((here - there, "no"), (there - here, "further")):
        if parts:
            key = "family.ema_decay" if min(parts) == "ema" else min(parts).replace("objectives", "objective")
            listed = ", ".join(sorted(parts))
            raise ValueError(
                f"the checkpoint has {what} weights of {listed}: a resumed run keeps what it trains and "
                f"averages; leave {key} as it was, or start another run with init=RUN"
            )
    kept = [name for name in (*own, *loaded) if not name.endswith("._extra_state")]
    differ = [name for name in kept if _shape(own, name) != _shape(loaded, name)]
    if differ:
        key = _part(differ[0]).replace("objectives", "objective")
        raise ValueError(
            f"the checkpoint has other weights of {key} ({differ[0]}): leave {key} as it was, or start "
            "another run with init=RUN"
        )


def _shape(state: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _part(name: str) -> str:
    """ema.model.0.weight -> ema; objectives.adversarial.discriminator.0.bias -> objectives.adversarial."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "objectives" else first
