"""Low-rank adapters (LoRA): fine-tuning of a network by a few added weights, its own being frozen.

Each adapted weight W, seen as a matrix (out, in), becomes W + B A with A (rank, in) and B (out, rank); B
starts at 0, so training starts from the original network. Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", ICLR 2022, with its scale at 1. The adapters are added to the weights when a checkpoint is
read: the exported network has its original parameter names and cost.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from restora.arguments import check_arguments
from restora.networks.base import Network
from restora.networks.transfer import matching

_PLACE = ".parametrizations.weight."


class LowRank(nn.Module):
    """W -> W + B A."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.A = nn.Parameter(torch.randn(rank, columns, device=weight.device) / math.sqrt(columns))
        self.B = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.B @ self.A).view(weight.shape)


@dataclass(frozen=True, kw_only=True)
class _Options:
    rank: int
    names: Sequence[str] = ()


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `adapt` in a configuration. Raises ValueError for other keys and values."""
    check_arguments(_Options, given, where="family.adapters", name="family.adapters")
    return dict(given)


def adapt(network: Network, *, rank: int, names: Sequence[str] = ()) -> list[str]:
    """Freezes the network and adds adapters to it; returns the names of the adapted weights.

    `names` are patterns of weights; empty selects every linear layer and every convolution that mixes
    channels and has more than `rank` of them. Raises ValueError for a pattern that matches no such weight.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"family.adapters.rank must be a whole number of 1 or more, got {rank!r}")
    layers = {
        f"{name}.weight": module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    if names:
        chosen = matching(layers, names, where="family.adapters.names")
    else:
        chosen = {n for n, m in layers.items() if rank < min(m.weight.shape[0], m.weight[0].numel())}
    if not chosen:
        raise ValueError(f"family.adapters.rank={rank} is not below the rank of any weight: set a lower rank")
    network.requires_grad_(False)
    for name in layers:
        if name in chosen:
            layer = layers[name]
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank), unsafe=True)
    return [name for name in layers if name in chosen]


def without_adapters(network: Network) -> Network:
    """A copy with the adapters added to its weights, for code that reads or folds weights.

    Note: torch's own removal of a parametrization modifies a class that the copy shares with the original.
    """
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if parametrize.is_parametrized(module, "weight"):
            weight = cast(Tensor, module.weight).detach().clone()
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            module.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    return plain


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network under its original names, with the adapters added."""
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, place, part = name.partition(_PLACE)
        if not place:
            made[name] = value
        elif part == "original":
            a, b = state[f"{layer}{_PLACE}0.A"], state[f"{layer}{_PLACE}0.B"]
            made[f"{layer}.weight"] = value + (b.float() @ a.float()).view(value.shape).to(value.dtype)
    return made
