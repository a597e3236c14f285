"""Drawings in training crops."""

import numpy as np
import pytest

from restora import registry
from restora.data.crops import SeededTransform
from restora.data.graphics import Graphics

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def drawn(bits: int, photo: np.ndarray = PHOTO, **options: object) -> np.ndarray:
    crop = photo.copy()
    SeededTransform([Graphics(p=1.0, **options)])(bits, crop, None)
    return crop


def test_a_drawing_is_a_function_of_the_crop() -> None:
    assert np.array_equal(drawn(5), drawn(5))
    assert not np.array_equal(drawn(5), drawn(6))


@pytest.mark.parametrize("shape", [(64, 64, 1), (17, 33, 3), (1, 1, 3), (9, 9, 1)])
def test_crops_of_any_size(shape: tuple[int, int, int]) -> None:
    photo = np.full(shape, 90, np.uint8)
    assert any(not np.array_equal(drawn(bits, photo), photo) for bits in range(8))


def test_the_photo_is_kept_beside_the_drawing() -> None:
    kept = [np.mean((drawn(bits, alone=0.0, shapes=(1, 2)) == PHOTO).all(-1)) for bits in range(40)]
    assert np.mean(kept) > 0.5
    alone = [np.mean((drawn(bits, alone=1.0) == PHOTO).all(-1)) for bits in range(40)]
    assert np.mean(alone) < 0.02, "nothing of the photo is left"


def test_the_share_of_crops() -> None:
    changed = []
    for bits in range(400):
        crop = PHOTO.copy()
        SeededTransform([Graphics(p=0.2)])(bits, crop, None)
        changed.append(not np.array_equal(crop, PHOTO))
    assert np.mean(changed) == pytest.approx(0.2, abs=0.06)


def test_a_degraded_partner_gets_the_same_drawing() -> None:
    clean, degraded = PHOTO.copy(), PHOTO.copy()
    SeededTransform([Graphics(p=1.0, alone=1.0)])(3, clean, degraded)
    assert np.array_equal(clean, degraded)
    clean, half = PHOTO.copy(), np.zeros((32, 48, 3), np.uint8)
    SeededTransform([Graphics(p=1.0, alone=1.0)])(3, clean, half)
    # the nearest pixels of the drawing
    assert np.array_equal(clean[::2, ::2], half)


@pytest.mark.parametrize(("key", "value"), [("alone", 1.5), ("shapes", (0, 2)), ("shapes", (3, 2))])
def test_impossible_settings(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        Graphics(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "restora.data.graphics.Graphics", "shapes": 5}, "shapes: Input should be"),
        ({"_target_": "albumentations.GaussianBlur", "p": 2}, "p: Input should be less"),
    ],
)
def test_a_refused_argument_is_named_on_one_line(node: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        registry.build(node, None, where="data.transforms[0]", foreign=True)
    assert "\n" not in str(refused.value)
    assert "InitSchema" not in str(refused.value)
