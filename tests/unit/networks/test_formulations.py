"""Each place computes its own formulation, and all give the same numbers, forward and backward."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from restora.config import build, parts
from restora.networks.layers import formulations
from restora.networks.layers.formulations import as_in

SMALL = {"middle_blocks": 1, "encoder_blocks": [1], "decoder_blocks": [1]}
CASES: dict[str, dict[str, Any]] = {
    "nafnet_small": {"width": 24, **SMALL},
    "restormer_small": {"channels": 24},
    "swinir_denoise_small": {},
}
"""Networks of one class each that hold an operation with two formulations."""


def _noted(asked: list[bool], answer: Callable[[Any], bool], x: torch.Tensor) -> bool:
    asked.append(answer(x))
    return asked[-1]


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_the_same_everywhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = build(dict(parts("network")[name]) | CASES[name], "network")
    for parameter in network.parameters():
        if parameter.ndim > 1 or not parameter.any():  # residual branches that begin at zero
            nn.init.normal_(parameter, std=0.1)
    x = torch.rand(1, network.in_channels, 32, 32)
    asked: list[bool] = []
    for question in ("on_cpu", "fused_by_compiler"):
        noted = partial(_noted, asked, getattr(formulations, question))
        for user in ("channels_last", "windows", "restormer_blocks"):
            monkeypatch.setattr(f"restora.networks.layers.{user}.{question}", noted, raising=False)
    made = {}
    for place in ("cpu", "device", "compiled"):
        network.zero_grad()
        asked.clear()
        with as_in(place):
            y = network(x)
            y.square().sum().backward()
        made[place] = (
            y.detach(),
            {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None},
        )
        assert asked
        assert any(asked) == (place == "cpu" or (place == "compiled" and name == "restormer_small"))
    for place in ("device", "compiled"):
        torch.testing.assert_close(made[place][0], made["cpu"][0], atol=1e-4, rtol=1e-4)
        for weight, wanted in made["cpu"][1].items():
            scale = wanted.abs().max().clamp_min(1e-3)
            torch.testing.assert_close(made[place][1][weight] / scale, wanted / scale, atol=1e-4, rtol=1e-4)


def test_a_cpu_keeps_its_own() -> None:
    x = torch.rand(2)
    assert formulations.on_cpu(x)
    assert not formulations.fused_by_compiler(x)
    assert not formulations.on_cpu(x.to("meta"))
