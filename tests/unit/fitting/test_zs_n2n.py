"""Zero-Shot Noise2Noise: what its two views are, and that it takes noise away."""

import random

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restora.fitting.base import Problem
from restora.fitting.running import run
from restora.fitting.zs_n2n import ZeroShotNoise2Noise, _whole, halves
from restora.networks.zs_n2n import ZsN2N
from restora.operators.resizing import Bicubic


def noisy(clean: Tensor, sigma: float = 25) -> Tensor:
    return clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255


@pytest.fixture(scope="module")
def clean() -> Tensor:
    photo = np.ascontiguousarray(data.astronaut()[20:84, 180:244])
    return torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_the_views_share_the_photo_and_no_pixel() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    first, second = halves(x)
    assert first.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(first, second), "of a plane both diagonals have one mean"
    x.requires_grad_()
    seen = [torch.autograd.grad(view.sum(), x)[0] > 0 for view in halves(x)]
    assert not (seen[0] & seen[1]).any()
    assert (seen[0] | seen[1]).all()


@pytest.mark.slow
def test_it_takes_noise_away_the_same_each_time(clean: Tensor) -> None:
    fit = ZeroShotNoise2Noise(steps=150, learning_rate=5e-3, crop=48, channels=16)
    problem = Problem(noisy(clean))
    before = torch.random.get_rng_state(), random.getstate()
    restored = run(fit, problem, seed=3).picture
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert psnr(restored, clean) > psnr(problem.degraded, clean) + 4
    torch.manual_seed(99)
    assert torch.equal(run(fit, problem, seed=3).picture, restored)
    assert not torch.equal(run(fit, problem, seed=4).picture, restored)


@pytest.mark.parametrize("shape", [(1, 1, 5, 9), (1, 4, 4, 6)])
def test_any_size_and_channels(shape: tuple[int, ...]) -> None:
    outcome = run(ZeroShotNoise2Noise(steps=2, crop=128), Problem(torch.rand(shape)))
    assert outcome.picture.shape == shape


def test_strips_are_the_whole() -> None:
    torch.manual_seed(0)
    network, x = ZsN2N(channels=8), torch.rand(1, 3, 23, 10)
    torch.testing.assert_close(_whole(network, x, pixels=40), network(x).detach(), atol=1e-6, rtol=0)


def test_it_refuses_what_is_not_noise() -> None:
    with pytest.raises(ValueError, match="removes noise.*Bicubic.*dip"):
        run(ZeroShotNoise2Noise(), Problem(torch.rand(1, 3, 8, 8), Bicubic(2)))
