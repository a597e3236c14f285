"""Every option of `degradation` keeps the contract: replayable, per sample, determined by keys alone."""

import pytest
import torch

from restora.config import build, parts
from restora.degradations.base import Degradation
from restora.keyed import KeyedGenerator, sample_key

NODES = parts("degradation")
SCHEDULES = parts("schedule")
SIZE = 48


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """(8,3,48,48): a smooth ramp under a checkerboard, so that every frequency and colour is there."""
    rows = torch.linspace(0, 1, SIZE)
    ramp = torch.stack([rows[:, None] * rows, rows[:, None].expand(SIZE, SIZE), 1 - rows.expand(SIZE, SIZE)])
    board = ((torch.arange(SIZE)[:, None] // 4 + torch.arange(SIZE) // 4) % 2).float()
    return torch.stack([(ramp * (0.5 + 0.05 * i) + 0.2 * board).clamp(0, 1) for i in range(8)])


def generator(first: int, count: int) -> KeyedGenerator:
    return KeyedGenerator(torch.tensor([sample_key(7, i) for i in range(first, first + count)]))


@pytest.mark.parametrize("name", NODES)
def test_degradation_keeps_its_contract(name: str, photos: torch.Tensor) -> None:
    degradation: Degradation = build(NODES[name], "degradation")
    before = photos.clone()
    image, condition = degradation(photos, generator(0, 8))
    side = SIZE // degradation.scale
    assert image.shape == (8, 3, side, side)
    assert image.dtype == torch.float32
    assert torch.isfinite(image).all()
    assert torch.equal(photos, before), "the clean photos were changed in place"
    assert (condition is None) == (degradation.condition_channels == 0)
    if condition is not None:
        assert condition.shape == (8, degradation.condition_channels, side, side)

    again, _ = degradation(photos, generator(0, 8))
    assert torch.equal(image, again), "the same keys gave another photo"

    for starts in ((0, 4), (0, 1, 2, 5)):
        bounds = zip(starts, (*starts[1:], 8), strict=True)
        split = [degradation(photos[a:b], generator(a, b - a)).image for a, b in bounds]
        # the last bit: equal in all files but rain's, on a CPU with AVX-512
        torch.testing.assert_close(torch.cat(split), image, atol=2e-7, rtol=0)


UNCLIPPED = {  # noise as the field defines it, and filters that overshoot
    "any_noise",
    "bicubic_x4_same_size",
    "correlated_noise",
    "film_grain",
    "gaussian_noise",
    "gaussian_noise_range",
    "low_resolution",
    "on_demand_noise",
    "pixel_shift",
    "poisson_gaussian_noise",
    "poisson_noise",
    "sinc_blur",
    "speckle_noise",
    "varying_gaussian_noise",
}


@pytest.mark.parametrize("name", NODES)
def test_photos_stay_within_black_and_white_unless_it_is_said(name: str) -> None:
    """On black and white pixels and squares, the hardest to keep in range, and on random pixels."""
    extremes = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    extremes[0] = extremes[0].round()
    extremes[1:3] = extremes[1:3, :, ::8, ::8].round().repeat_interleave(8, 2).repeat_interleave(8, 3)
    degradation: Degradation = build(NODES[name], "degradation")
    image = degradation(extremes, generator(0, 4)).image
    outside = bool(image.min() < -1e-5 or image.max() > 1 + 1e-5)
    assert outside == (name in UNCLIPPED)
    if outside and name != "any_noise":
        said = " ".join((type(degradation).__doc__ or "").split())
        assert "ot clipped" in said, "its docstring does not say so"


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_stays_between_nothing_and_the_base_rate(name: str) -> None:
    schedule = build(SCHEDULES[name], "schedule")
    factors = [schedule(step / 50) for step in range(51)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors == sorted(factors, reverse=True)
