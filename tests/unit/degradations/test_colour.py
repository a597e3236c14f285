"""Colour and light: curves, matrices and their limits."""

import pytest
import torch
from photos import generator, grey_card, photos

from restora.degradations.exposure import Exposure
from restora.degradations.fading import Fading
from restora.degradations.greyscale import Greyscale
from restora.degradations.haze import Haze
from restora.degradations.moire import Moire
from restora.degradations.rain import Rain
from restora.degradations.sepia import Sepia


def test_greyscale_is_the_luma_of_bt601() -> None:
    clean = photos(2)
    luma = (clean * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(Greyscale()(clean, generator(2)).image, luma.expand(-1, 3, -1, -1), atol=1e-6)
    assert torch.allclose(Greyscale(channels=1)(clean, generator(2)).image, luma, atol=1e-6)
    with pytest.raises(ValueError, match="3 channels"):
        Greyscale()(clean[:, :1], generator(2))


def test_exposure_counts_in_stops_of_linear_light() -> None:
    def light(x: float) -> float:
        return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4

    for value, stops in ((0.5, -1.0), (0.3, 1.0), (0.02, 0.5)):
        image = Exposure(stops=stops)(grey_card(value, size=8), generator(1)).image
        assert light(image.mean().item()) == pytest.approx(light(value) * 2**stops, rel=1e-3)
    clipped = Exposure(stops=3)(grey_card(0.9, size=4), generator(1)).image
    assert clipped.max() <= 1
    assert clipped.min() > 1 - 1e-6  # the curve's constants, rounded, miss white by the last bit
    assert torch.allclose(Exposure(stops=0)(photos(1), generator(1)).image, photos(1), atol=1e-5)
    assert Exposure(stops=-2)(photos(1)[:, :1], generator(1)).image.shape[1] == 1


def test_fading_lifts_shadows_and_keeps_whites() -> None:
    clean = photos(4)
    assert torch.allclose(Fading(fade=0, stain=0)(clean, generator(4)).image, clean, atol=1e-5)
    fading = Fading(fade=0.5, stain=0)
    assert torch.allclose(
        fading(grey_card(1.0, size=4), generator(1)).image, grey_card(1.0, size=4), atol=1e-6
    )
    black = fading(grey_card(0.0, size=4), generator(1)).image[0, :, 0, 0]
    assert black[0] == pytest.approx((0.1**0.5 - 0.1) / 0.9, rel=1e-3)
    assert black[0] > black[1] > 0  # cyan dye goes first: a red cast
    assert black[0] > black[2] > 0
    yellowed = Fading(fade=0, stain=0.2)(grey_card(1.0, size=4), generator(1)).image[0, :, 0, 0]
    assert torch.allclose(yellowed, torch.tensor([1.0, 0.9, 0.8]), atol=1e-5)


def test_sepia_mixes_with_its_strength() -> None:
    clean = photos(1)
    full, half = (Sepia(strength=s)(clean, generator(1)).image for s in (1.0, 0.5))
    assert torch.allclose(half, (full + clean) / 2, atol=1e-6)
    tone = Sepia()(grey_card(0.5, size=4), generator(1)).image[0, :, 0, 0]
    assert tone[0] > tone[1] > tone[2]


def test_haze_follows_koschmieder() -> None:
    haze = Haze(density=(0.5, 2.0), airlight=(0.75, 1.0))
    black, white = grey_card(0.0, batch=4, size=64), grey_card(1.0, batch=4, size=64)
    params = haze.sample(tuple(black.shape), generator(4))
    lower, upper = haze.apply(black, params), haze.apply(white, params)
    seen = upper - lower  # the transmission, whatever the airlight
    assert torch.allclose(lower, params["airlight"][..., None, None] * (1 - seen), atol=1e-5)
    assert (seen > torch.exp(-params["density"]).view(-1, 1, 1, 1) - 1e-5).all()
    assert seen.max() <= 1 + 1e-6
    assert (seen[..., 48:, :].mean((1, 2, 3)) > seen[..., :16, :].mean((1, 2, 3))).all()


def test_moire_has_its_period_and_depth() -> None:
    moire = Moire(period=8, amplitude=0.3, bend=0)
    image = moire(grey_card(1.0, batch=6, size=128), generator(6)).image
    assert image.max() <= 1
    assert image.min() >= 0.7**2 - 1e-3
    spectrum = torch.fft.fft2(image[:, 1] - image[:, 1].mean((1, 2), keepdim=True)).abs()
    for b in range(6):
        place = spectrum[b].argmax()
        y, x = (min(v, 128 - v) for v in (int(place) // 128, int(place) % 128))
        assert (y * y + x * x) ** 0.5 == pytest.approx(128 / 8, abs=1.5)
    assert (image[:, 0] - image[:, 1]).abs().mean() > 0.01  # coloured fringes


def test_rain_only_brightens_along_its_direction() -> None:
    clean = photos(3, 96, 96) * 0.5
    image = Rain(density=0.01, length=21, angle=90)(clean, generator(3)).image
    assert (image >= clean - 1e-6).all()
    assert image.max() <= 1
    layer = 1 - (1 - image[:, 0]) / (1 - clean[:, 0])
    down = (layer[:, 1:] - layer[:, :-1]).abs().mean()
    across = (layer[:, :, 1:] - layer[:, :, :-1]).abs().mean()
    assert across > 4 * down
    assert 0.05 < (layer > 0.02).float().mean() < 0.4
