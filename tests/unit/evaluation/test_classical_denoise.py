"""The classical denoisers stand at the top of their own tuning curve, in grey and in colour."""

import numpy as np
import pytest

from restora.evaluation.classical import BASELINES
from restora.evaluation.classical.denoise import Photo, bm3d, wiener
from restora.evaluation.classical.tuning import tuned_psnr, tuning_photos

DENOISERS = BASELINES | {"wiener": wiener}
EVERY = DENOISERS | {"bm3d": bm3d}
NAMES = [*DENOISERS, pytest.param("bm3d", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def colour() -> list[Photo]:
    return tuning_photos(side=128)


@pytest.fixture(scope="module")
def grey(colour: list[Photo]) -> list[Photo]:
    return [photo @ np.array([[0.299], [0.587], [0.114]]) for photo in colour]


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("kind", ["colour", "grey"])
@pytest.mark.slow
def test_each_filter_is_as_strong_as_its_parameter_allows(
    name: str, kind: str, colour: list[Photo], grey: list[Photo]
) -> None:
    photos = colour if kind == "colour" else grey
    scores = {strength: tuned_psnr(DENOISERS[name], 25, photos, strength) for strength in (0.7, 1.0, 1.4)}
    assert scores[1.0] > max(scores.values()) - 0.15, scores
    noisy = 20 * np.log10(255 / 25)
    assert scores[1.0] > noisy + 3


@pytest.mark.parametrize("name", DENOISERS)
def test_a_flat_photo_keeps_its_mean_and_loses_its_noise(name: str) -> None:
    noisy = 0.5 + np.random.default_rng(0).normal(0, 25 / 255, (65, 71, 3))
    restored = DENOISERS[name](noisy, 25)
    assert restored.shape == noisy.shape
    assert abs(restored.mean() - noisy.mean()) < 0.005
    assert restored.std() < 0.6 * noisy.std()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (3, 20), (8, 8)])
def test_photos_of_few_pixels_are_denoised_without_a_warning(name: str, size: tuple[int, int]) -> None:
    """Of 8x8 pixels the package bm3d crashes."""
    photo = np.random.default_rng(0).random((*size, 3))
    for noisy in (photo, photo[..., :1]):
        restored = EVERY[name](noisy, 25.0)
        assert restored.shape == noisy.shape
        assert np.isfinite(restored).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_grey_photo_in_three_channels_stays_grey(name: str, grey: list[Photo]) -> None:
    noisy = grey[0][:24, :24] + np.random.default_rng(0).normal(0, 0.1, (24, 24, 1))
    restored = EVERY[name](np.repeat(noisy, 3, axis=2), 25.0)
    assert np.ptp(restored, axis=2).max() < 1e-3


@pytest.mark.slow
def test_bm3d_leads_the_filters(grey: list[Photo]) -> None:
    pytest.importorskip("bm3d")
    clean = grey[0][32:96, 32:96]
    best = max(tuned_psnr(denoise, 25, [clean], 1.0) for denoise in BASELINES.values())
    assert tuned_psnr(bm3d, 25, [clean], 1.0) > best
