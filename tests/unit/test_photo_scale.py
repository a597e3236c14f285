"""Photos that are not on the [0,1] scale are named, noisy and slightly exceeding ones are not."""

import logging

import pytest
import torch

from restora import image


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    image._say_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


def ramp() -> torch.Tensor:
    return torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)


def test_photos_between_minus_one_and_one_are_named_once(said: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        image.check_photos(2 * ramp() - 1)
    assert [record.message.partition(": ")[2] for record in said.records] == [
        "if theirs are in [-1,1], pass (photo + 1) / 2"
    ]


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_overshoot_and_unclipped_noise_are_not(said: pytest.LogCaptureFixture, floor: float) -> None:
    image.check_photos(ramp() * 1.002 - 1e-3)
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    image.check_photos(floor * ramp() + 75 / 255 * noise)
    assert not said.records
