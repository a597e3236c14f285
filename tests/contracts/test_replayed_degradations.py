"""What a device computes of every degradation can be recorded once and replayed, and is what a CPU computes.

The way of a device is taken here on a CPU, where all is asked of torch and nothing of what was drawn.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from played_graph import Played
from torch import Tensor

from restora import degradations
from restora.config import build, parts
from restora.data.degrading import made
from restora.data.replayed import Replayed
from restora.keyed import sample_key
from restora.registry import classes

NODES = parts("degradation")
SIDE = 24


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    photos = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    return photos, torch.tensor([sample_key(number, index) for index in range(3)])


def asking() -> list[ModuleType]:
    """Modules of degradations that have a way of their own on a CPU."""
    found = pkgutil.walk_packages(degradations.__path__, f"{degradations.__name__}.")
    modules = [importlib.import_module(module.name) for module in found]
    return [module for module in modules if hasattr(module, "host_knows")]


def named_in(node: Any) -> Iterator[str]:
    """The parts of a description."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from named_in(value)
    if isinstance(node, dict) and "_target_" in node:
        yield node["_target_"]


def test_no_degradation_is_left_out() -> None:
    """Each is an option, or a stage of one, and all options are replayed below."""
    ours = {name for name, kind in classes("degradation").items() if kind.__module__.startswith("restora.")}
    assert ours == ours & set(named_in(NODES))
    assert len(asking()) > 3


@pytest.mark.parametrize("name", NODES)
def test_a_degradation_is_replayed_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    degradation = build(dict(NODES[name]), "degradation")
    by_a_cpu = [made(degradation, False, *batch(number)) for number in range(4)]
    played, calls = Played(monkeypatch), []
    for module in asking():
        monkeypatch.setattr(module, "host_knows", lambda _: False)

    def make(photos: Tensor, keys: Tensor) -> Any:
        calls.append(len(photos))
        return made(degradation, False, photos, keys)

    replays = Replayed(make)
    replayed = [replays(*batch(number)) for number in range(4)]
    assert played.recorded == 1
    assert len(calls) == 3  # the first, and the second without and with a recording
    for number, (got, wanted) in enumerate(zip(replayed, by_a_cpu, strict=True)):
        again = made(degradation, False, *batch(number))
        for one, other, of_a_cpu in zip(got, again, wanted, strict=True):
            if one is None or other is None or of_a_cpu is None:
                assert one is other is of_a_cpu
                continue
            assert torch.equal(one, other)
            error = (one - of_a_cpu).abs()  # as of a device: a rounding may turn a last bit into a step
            assert error.mean() < 2e-4
            assert (error > 1e-3).float().mean() < 0.01
