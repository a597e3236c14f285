"""CIEDE2000 against the pairs that its notes publish, another implementation, and what holds for photos."""

import numpy as np
import pytest
import torch

from restora.metrics.color import ciede2000, delta_e, to_lab
from restora.metrics.registry import METRICS

# Sharma, Wu and Dalal 2005, table 1: opposite hues, one colour grey, or the rotation in the blue at work
PAIRS = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0011), 7.2195),
    ((50, 2.5000, 0), (73, 25, -18), 27.1492),
    ((50, 2.5000, 0), (50, 3.1736, 0.5854), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_the_published_pairs(first: tuple, second: tuple, expected: float) -> None:
    one, other = (torch.tensor([color], dtype=torch.float64) for color in (first, second))
    assert ciede2000(one, other).item() == pytest.approx(expected, abs=5e-5)
    assert ciede2000(other, one).item() == pytest.approx(expected, abs=5e-5)


def test_photos_as_another_implementation_sees_them() -> None:
    color = pytest.importorskip("skimage.color")
    photos = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = (color.rgb2lab(photo.permute(1, 2, 0).numpy()) for photo in photos)
    np.testing.assert_allclose(to_lab(photos[:1])[0].permute(1, 2, 0), first, atol=0.006)
    expected = color.deltaE_ciede2000(first, second).mean()
    assert delta_e(photos[:1], photos[1:]).item() == pytest.approx(expected, abs=0.002)


def test_equal_photos_differ_by_nothing_and_black_from_white_by_a_hundred() -> None:
    photo = torch.rand(1, 3, 8, 8)
    assert delta_e(photo, photo).item() == 0
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert delta_e(black, white).item() == pytest.approx(100, abs=1e-3)


def test_grey_photos_are_compared_by_their_lightness() -> None:
    one, other = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(
        delta_e(one, other), delta_e(one.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1))
    )


def test_lost_colour_counts_and_so_does_every_photo_alone() -> None:
    clean = torch.rand(2, 3, 8, 8)
    grey = clean.mean(dim=1, keepdim=True).expand_as(clean)
    both = METRICS["delta_e"].compute(grey, clean)
    assert both.shape == (2,)
    assert (both > 5).all()
    torch.testing.assert_close(both[1:], delta_e(grey[1:], clean[1:]))
    assert not METRICS["delta_e"].higher_is_better
