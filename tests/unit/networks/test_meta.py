"""Networks without memory for their weights, whatever their constructors read."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from restora.artifact.bounded import build_bounded, imagined
from restora.networks.base import Network
from restora.networks.cost import count_macs
from restora.networks.meta import on_meta


class Rates(Network):
    """Its constructor reads tensors, as those of many transformers do."""

    def __init__(self, *, width: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 3
        self.rates = [x.item() for x in torch.linspace(0, 0.5, depth)]
        self.body = nn.Conv2d(3, width, 3)

    def restore(self, x, condition):
        return x


class Refusing(nn.Module):
    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        raise ValueError("depth must be even")


def test_a_constructor_may_read_tensors() -> None:
    ghost = on_meta(lambda: Rates(depth=3))
    assert ghost.rates == [0, 0.25, 0.5]
    assert ghost.body.weight.is_meta
    assert not build_bounded(Rates, {"depth": 3}).body.weight.is_meta


def test_a_constructor_that_reads_tensors_is_bounded() -> None:
    with pytest.raises(ValueError, match="refused"):
        imagined(type("Deep", (Rates,), {"__init__": _deep}), {})


def _deep(self) -> None:
    Rates.__init__(self)
    self.many = nn.ModuleList(nn.Linear(1, 1) for _ in range(5001))


def test_a_refusal_is_not_tried_twice() -> None:
    with pytest.raises(ValueError, match="even"):
        on_meta(Refusing)
    assert Refusing.made == 1


def test_no_initial_values_are_computed_where_there_is_no_memory() -> None:
    seen = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Seen():
        ghost = on_meta(lambda: nn.Conv2d(3, 4, 3))
    assert ghost.weight.is_meta
    assert not [name for name in seen if "normal" in name or "uniform" in name]


def test_a_network_on_the_meta_device_is_counted_without_a_copy_and_keeps_its_modes() -> None:
    ghost = on_meta(lambda: Counted(depth=1))
    ghost.train()
    ghost.body.eval()
    ghost.__dict__["no_copy"] = (each for each in ())  # a generator cannot be copied
    assert count_macs(ghost, height=8, width=8) == 8 * 8 * 3 * 4 * 9
    assert ghost.training
    assert not ghost.body.training


class Counted(Rates):
    def restore(self, x, condition):
        assert not self.training
        return self.body(nn.functional.pad(x, (1, 1, 1, 1)))[:, :3]
