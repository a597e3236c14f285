"""What a device computes of every degradation can be recorded once and replayed, and is what a CPU computes.

The way of a device is taken here on a CPU, where all is asked of torch and nothing of what was drawn.
"""

import importlib
from typing import Any

import pytest
import torch
from played_graph import Played
from torch import Tensor

from restora.config import build, parts
from restora.data.module import made
from restora.data.replayed import Replayed
from restora.keyed import sample_key

NODES = parts("degradation")
ASKING = ("compose.selection", "compose.second_order", "noise.poisson", "blur.mixed_blur")
"""Modules of degradations that have a way of their own on a CPU."""
SIDE = 24
LONG = {
    "bicubic_x3": "bicubic_x2",
    "damaged": "scratches, text_overlay and a blur",
    "div2k_mild_x4": "div2k_wild_x4",
    "dither_atkinson": "dither_floyd_steinberg",
    "dither_jarvis": "dither_floyd_steinberg",
    "old_photo": "scratches, and what else is here alone",
    "old_photo_scan": "the same",
    "real_esrgan_x2": "real_esrgan_x4",
    "scratches": "6,772 calls, as of damaged's",
    "small_photo_x2": "small_photo_x4",
}
"""Options that take long and repeat others."""


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    photos = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    return photos, torch.tensor([sample_key(number, index) for index in range(3)])


@pytest.mark.parametrize("name", [name for name in NODES if name not in LONG])
def test_a_degradation_is_replayed_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    degradation = build(dict(NODES[name]), "degradation")
    by_a_cpu = [made(degradation, False, *batch(number)) for number in range(4)]
    played, calls = Played(monkeypatch), []
    for module in ASKING:
        monkeypatch.setattr(
            importlib.import_module(f"restora.degradations.{module}"), "host_knows", lambda _: False
        )

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
