"""The temporal error of a restored video."""

import pytest
import torch

from restora.metrics.temporal import temporal_error


def test_it_is_of_the_changes_alone() -> None:
    clean = torch.rand(6, 3, 24, 20)
    assert temporal_error(clean, clean) == 0
    assert temporal_error(clean + torch.rand(1, 3, 24, 20), clean) == pytest.approx(0, abs=1e-4)
    flicker = torch.tensor([0.0, 0.1, 0.0, 0.1, 0.0, 0.1]).view(6, 1, 1, 1)
    assert temporal_error(clean + flicker, clean) == pytest.approx(25.5, rel=1e-5)
    still = torch.full_like(clean, 0.5)
    by_hand = sum((clean[t] - clean[t - 1]).abs().mean() for t in range(1, 6)) / 5 * 255
    assert temporal_error(still, clean) == pytest.approx(float(by_hand), rel=1e-5)


def test_noise_in_each_frame_adds_up() -> None:
    clean = torch.rand(9, 3, 64, 64)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 10 / 255
    expected = 10 * 2**0.5 * (2 / torch.pi) ** 0.5  # the mean absolute value of N(0, 2 * 10^2)
    assert temporal_error(clean + noise, clean) == pytest.approx(expected, rel=0.01)


def test_what_is_no_video_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two videos \(T,C,H,W\) of equal shape and at least 2 frames"):
        temporal_error(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="got"):
        temporal_error(torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 9))
