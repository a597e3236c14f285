"""Colour and light: curves, matrices and their limits."""

import math

import pytest
import torch
from photos import generator, grey_card, photos

from restora.degradations.base import Degradation
from restora.degradations.colour.exposure import Exposure
from restora.degradations.colour.fading import Fading
from restora.degradations.colour.greyscale import Greyscale
from restora.degradations.colour.keep_grey import KeepGrey
from restora.degradations.colour.low_light import LowLight
from restora.degradations.colour.sepia import Sepia
from restora.degradations.identity import Identity
from restora.degradations.sampling.moire import Moire
from restora.degradations.weather.haze import Haze
from restora.degradations.weather.rain import Rain


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


def test_light_has_any_number_of_channels() -> None:
    clean = photos(2)
    for many in (clean[:, :2], torch.cat((clean, clean), 1)):
        both = Exposure(stops=1)(many, generator(2)).image
        assert torch.equal(
            both, Exposure(stops=1)(clean, generator(2)).image.repeat(1, 2, 1, 1)[:, : many.shape[1]]
        )
    assert LowLight(stops=2)(torch.cat((clean, clean), 1), generator(2)).image.shape[1] == 6


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
    assert torch.allclose(tone, 0.5 * torch.tensor([1.351, 1.203, 0.937]), atol=1e-3)
    # it is made of light alone: colours of one luma have one tone
    toned = Sepia()(torch.rand(1, 3, 8, 8) * 0.7, generator(1)).image
    assert torch.allclose(toned[:, 0] / toned[:, 2], torch.tensor(1.351 / 0.937), atol=0.02)


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
    # two gratings, each of which takes half its depth on average
    assert image.mean() == pytest.approx((1 - 0.15) ** 2, rel=0.02)
    assert torch.equal(Moire(period=8, amplitude=0)(photos(1), generator(1)).image, photos(1))


def test_bending_spreads_the_period_of_moire() -> None:
    def sharpness(bend: float) -> float:
        image = Moire(period=8, amplitude=0.3, bend=bend)(
            grey_card(1.0, batch=8, size=128), generator(8)
        ).image
        power = torch.fft.fft2(image - image.mean((2, 3), keepdim=True)).abs().square()
        return float(power.amax((2, 3)).sum() / power.sum())

    assert sharpness(6.0) < 0.6 * sharpness(0.0)


def test_rain_only_brightens_along_its_direction() -> None:
    clean = photos(3, 96, 96) * 0.5
    image = Rain(density=0.01, length=21, angle=90, width=0.5)(clean, generator(3)).image
    assert (image >= clean - 1e-6).all()
    assert image.max() <= 1
    layer = 1 - (1 - image[:, 0]) / (1 - clean[:, 0])
    down = (layer[:, 1:] - layer[:, :-1]).abs().mean()
    across = (layer[:, :, 1:] - layer[:, :, :-1]).abs().mean()
    assert across > 4 * down
    assert 0.05 < (layer > 0.02).float().mean() < 0.4


def test_rain_adds_the_light_of_its_drops() -> None:
    """Sparse drops of mean brightness 1/2, each drawn out over its length and width, hardly meet: the means
    add up.
    """
    clean = grey_card(0.0, batch=4)
    rain = Rain(density=0.001, length=15, angle=(70, 110), width=0.5, brightness=0.6)
    image = rain(clean, generator(4)).image
    assert image.mean() == pytest.approx(0.001 * 0.5 * 15 * 0.5 * math.sqrt(2 * math.pi) * 0.6, rel=0.1)
    assert image.max() <= 0.6 + 1e-5
    assert torch.equal(image[:, 0], image[:, 2])
    assert torch.equal(Rain(density=0, length=15)(photos(2), generator(2)).image, photos(2))


def test_a_streak_is_a_segment_out_of_focus() -> None:
    """As long, as wide and as steep as asked: its spread along and across the direction of its fall."""
    rain = Rain(density=0.001, length=(10, 24), angle=(60, 120), width=(0.5, 2.0))
    params = rain.sample((50, 3, 64, 64), generator(50))
    kernels = rain.kernels(params)
    assert torch.allclose(kernels.amax((1, 2)), torch.ones(50))
    offsets = torch.arange(-rain.radius, rain.radius + 1.0)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    angle = torch.deg2rad(params["angle"]).view(-1, 1, 1)
    for position, expected in (
        (x * angle.cos() - y * angle.sin(), params["length"] ** 2 / 12 + params["width"] ** 2),
        (x * angle.sin() + y * angle.cos(), params["width"] ** 2),
    ):
        spread = (kernels * position.square()).sum((1, 2)) / kernels.sum((1, 2))
        assert torch.allclose(spread, expected, rtol=0.06)


def test_haze_grows_with_its_density_and_leaves_the_near() -> None:
    clean = photos(3, 64, 64)
    assert torch.allclose(Haze(density=0)(clean, generator(3)).image, clean, atol=1e-6)
    thin, thick = (Haze(density=d, airlight=0.9)(clean, generator(3)).image for d in (0.5, 3.0))
    contrast = [x.flatten(1).std(1) for x in (clean, thin, thick)]
    assert (contrast[0] > contrast[1]).all()
    assert (contrast[1] > contrast[2]).all()
    far = Haze(density=30, airlight=0.9)(clean, generator(3)).image[:, :, :4]
    assert (far - 0.9).abs().max() < 0.05


@pytest.mark.parametrize(
    "degradation",
    [Fading(fade=0.3), Greyscale(), KeepGrey(stage=Identity()), Sepia()],
    ids=lambda d: type(d).__name__,
)
def test_colours_are_needed(degradation: Degradation) -> None:
    with pytest.raises(ValueError, match=r"needs photos of 3 channels, got 1: set data\.channels=rgb"):
        degradation(photos(1)[:, :1], generator(1))
