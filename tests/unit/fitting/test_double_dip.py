"""Haze off one photo by two networks: better than before, a function of (photo, seed), what it refuses."""

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restora.degradations.weather.haze import Haze
from restora.fitting.base import Problem
from restora.fitting.double_dip import DoubleDip, airlight, dark_channel
from restora.fitting.running import run
from restora.keyed import KeyedGenerator
from restora.operators.resizing import Bicubic

SMALL = {"channels": 8, "scales": 2, "learning_rate": 1e-2, "window": 5}


@pytest.fixture(scope="module")
def photos() -> tuple[Tensor, Tensor]:
    """A clean photo and the same in haze."""
    photo = np.ascontiguousarray(data.coffee()[40:360:8, 100:484:8])
    clean = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    return clean, Haze(density=1.5, airlight=0.9)(clean, KeyedGenerator(torch.tensor([0]))).image


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.slow
def test_haze_goes_and_the_seed_decides(photos: tuple[Tensor, Tensor]) -> None:
    clean, hazy = photos
    restored = run(DoubleDip(steps=60, **SMALL), Problem(hazy), seed=1).picture
    assert psnr(restored, clean) > psnr(hazy, clean) + 5
    short = DoubleDip(steps=2, **SMALL)
    first = run(short, Problem(hazy), seed=1).picture
    torch.manual_seed(5)
    assert torch.equal(run(short, Problem(hazy), seed=1).picture, first)
    assert not torch.equal(run(short, Problem(hazy), seed=2).picture, first)


def test_the_light_is_that_of_the_thickest_haze(photos: tuple[Tensor, Tensor]) -> None:
    clean, hazy = photos
    assert airlight(hazy, 5).mean() == pytest.approx(0.88, abs=0.04)
    dark = dark_channel(clean, 5)
    assert dark.shape == (1, 1, *clean.shape[-2:])
    assert (dark <= clean).all()
    assert float(dark[0, 0, 10, 12]) == float(clean[..., 8:13, 10:15].min())


def test_what_it_is_not_for_is_refused(photos: tuple[Tensor, Tensor]) -> None:
    _, hazy = photos
    for problem, said in (
        (Problem(hazy[:, :1]), "colour of the haze"),
        (Problem(hazy, Bicubic(2)), "degraded by Bicubic: use method dip"),
        (Problem(hazy.repeat(1, 2, 1, 1)), "expected 3 channels, got 6"),
        (Problem(torch.zeros(1, 3, 1300, 1300)), "less than 1.5 megapixels"),
        (Problem(torch.zeros(1, 3, 16, 9)), "set scales=3"),
    ):
        with pytest.raises(ValueError, match=said):
            run(DoubleDip(steps=1), problem)
    for options, said in (
        ({"window": 4}, "odd"),
        ({"least": 0.0}, "least"),
        ({"dark": -1.0}, "dark must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            DoubleDip(**options)
