"""What an engine costs is measured until engines can be told apart, whatever else the machine does."""

from typing import Any

import pytest
import torch
from torch import nn

from restora.artifact import measuring


def measured(
    monkeypatch: pytest.MonkeyPatch, costs: dict[str, float], disturbed: int | None = None
) -> tuple[Any, int]:
    """The paces of computations of these costs, of which each `disturbed`th takes twice as long, and the
    rounds taken."""
    calls: list[Any] = []

    def seconds(compute: Any, *_: Any) -> float:
        calls.append(compute)
        return costs[compute.name] * (2 if disturbed and len(calls) % disturbed == 0 else 1)

    class Compute(nn.Identity):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Any, condition: Any) -> Any:
            return x

    network: Any = nn.Identity()
    network.in_channels, network.condition_channels = 3, 0
    monkeypatch.setattr(measuring, "_seconds", seconds)
    paces = measuring.paces({name: Compute(name) for name in costs}, network, 16)
    return paces, len(calls) // len(costs)


def test_a_processor_is_named_with_what_decides_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds of one generation are not taken for those of another that has the same name."""
    monkeypatch.setattr(measuring, "_model", lambda: "AMD EPYC")
    for level, bf16, amx, name in (
        ("AVX2", False, False, "AMD EPYC (AVX2)"),
        ("AVX512", True, True, "AMD EPYC (AVX-512, bfloat16, AMX)"),
        ("DEFAULT", False, False, "AMD EPYC"),
    ):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda level=level: level)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert measuring.processor() == name


def test_what_differs_clearly_takes_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    paces, rounds = measured(monkeypatch, {"a": 2e-3, "b": 1e-3, "c": 4e-3})
    assert sorted(paces, key=paces.__getitem__) == ["b", "a", "c"]
    assert paces["b"] == pytest.approx(1e-3 / (16**2 / 1e6))
    assert rounds == measuring.FEWEST


def test_what_is_disturbed_takes_more_rounds_and_is_still_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    paces, rounds = measured(monkeypatch, {"a": 1.08e-3, "b": 1e-3}, disturbed=3)
    assert paces["b"] < paces["a"]
    assert rounds == measuring.MOST


def test_what_costs_the_same_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, {"a": 1e-3, "b": 1.001e-3})[1] == measuring.FEWEST
