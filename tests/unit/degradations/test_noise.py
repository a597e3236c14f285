"""Noise: mean, variance, spectrum and correlation are those of the model."""

import pytest
import torch
from photos import generator, grey_card, photos
from scipy.stats import poisson as exact_poisson
from torch import Tensor

from restora.degradations.base import Degradation
from restora.degradations.colour.low_light import LowLight
from restora.degradations.compression.quantisation import Quantisation
from restora.degradations.noise import poisson as module
from restora.degradations.noise.correlated_noise import CorrelatedNoise
from restora.degradations.noise.film_grain import FilmGrain
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.noise.poisson import poisson, poisson_from
from restora.degradations.noise.poisson_gaussian_noise import PoissonGaussianNoise
from restora.degradations.noise.poisson_noise import PoissonNoise
from restora.degradations.noise.salt_and_pepper import SaltAndPepper
from restora.degradations.noise.speckle_noise import SpeckleNoise
from restora.degradations.noise.varying_gaussian_noise import VaryingGaussianNoise


def correlation(noise: Tensor, down: int, right: int) -> float:
    """Correlation of a field (B,C,H,W) with itself moved."""
    h, w = noise.shape[-2:]
    a, b = noise[..., : h - down, : w - right], noise[..., down:, right:]
    return float((a * b).mean() / noise.square().mean())


def test_gaussian_noise_has_its_sigma_and_a_flat_spectrum() -> None:
    clean = grey_card(0.5, batch=2)
    image, condition = GaussianNoise(sigma=25)(clean, generator(2))
    noise = image - clean
    assert abs(noise.mean()) < 1e-3
    assert noise.std() == pytest.approx(25 / 255, rel=0.01)
    assert condition is not None
    assert torch.allclose(condition, torch.tensor(25 / 255))
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 8)):
        assert abs(correlation(noise, down, right)) < 0.01
    assert abs((noise[:, 0] * noise[:, 1]).mean() / noise.square().mean()) < 0.01
    power = torch.fft.rfft2(noise).abs().square().mean((0, 1))[1:, 1:]
    quarters = [power[:64, :64], power[:64, 64:], power[64:128, :64], power[64:128, 64:]]
    for quarter in quarters:
        assert quarter.mean() == pytest.approx(power.mean().item(), rel=0.05)


@pytest.mark.parametrize(
    ("noise", "deviation"),
    [
        (PoissonNoise(photons=80), (0.4 / 80) ** 0.5),
        (PoissonGaussianNoise(electrons=200, read_noise=6), (0.4 / 200 + (6 / 200) ** 2) ** 0.5),
        (SpeckleNoise(strength=0.2), 0.4 * 0.2),
        (SaltAndPepper(density=0.1, per_channel=True), (0.05 * 0.6**2 + 0.05 * 0.4**2) ** 0.5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Degradation) else "",
)
def test_noise_of_every_kind_is_white_and_differs_between_channels_and_photos(
    noise: Degradation, deviation: float
) -> None:
    field = noise(grey_card(0.4, batch=2), generator(2)).image - 0.4
    assert field.std() == pytest.approx(deviation, rel=0.02)
    field = field - field.mean()
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 8)):
        assert abs(correlation(field, down, right)) < 0.01
    power = torch.fft.rfft2(field).abs().square().mean((0, 1))[1:, 1:]
    assert power[:32].mean() == pytest.approx(power[96:128].mean().item(), rel=0.08)
    planes = field.flatten(2).flatten(0, 1)
    mutual = planes @ planes.T / (planes.square().sum(1).mean())
    assert (mutual - torch.eye(6)).abs().max() < 0.03


def test_gaussian_noise_is_not_clipped_and_draws_sigma_per_sample() -> None:
    image, condition = GaussianNoise(sigma=(0, 55))(grey_card(1.0, batch=64, size=16), generator(64))
    assert image.max() > 1
    assert condition is not None
    levels = condition[:, 0, 0, 0] * 255
    assert levels.min() < 8
    assert levels.max() > 47
    assert levels.mean() == pytest.approx(27.5, abs=6)
    measured = (image - 1).flatten(1).std(1) * 255
    assert torch.allclose(measured, levels, atol=4)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4, 1.7, 3.99, 4.0, 6.5, 12.0, 60.0, 250.0])
def test_poisson_counts_follow_the_distribution(rate: float) -> None:
    counts = poisson(torch.full((4, 100_000), rate), generator(4)).flatten()
    assert counts.min() >= 0
    assert torch.equal(counts, counts.round())
    top = int(counts.max()) + 1
    found = torch.bincount(counts.long(), minlength=top).double() / counts.numel()
    expected = torch.from_numpy(exact_poisson.pmf(range(top), rate))
    # the sampling error of 400,000 draws, plus what the expansion for rates above 4 may be off
    assert (found - expected).abs().sum() / 2 < 0.5 * (top / counts.numel()) ** 0.5 + 1e-3


@pytest.mark.parametrize(("rate", "most"), [(0.0, 0), (1e-3, 3), (0.5, 10)])
def test_the_largest_normal_number_gives_no_impossible_count(rate: float, most: int) -> None:
    largest = torch.tensor([5.5, 6.0, 6.7])  # where float32's distribution function is 1
    assert poisson_from(torch.full_like(largest, rate), largest).max() <= most


def test_poisson_counts_do_not_depend_on_the_device_path() -> None:
    rate = photos(2).sub(0.1).clamp(min=0).mul(40)
    normal = generator(2).normal(rate.shape[1:])
    dense = torch.where(rate < 4, module._by_inversion(rate, normal), module._by_expansion(rate, normal))
    assert torch.equal(poisson_from(rate, normal), dense)
    assert (rate < 4).any()
    assert (rate > 4).any()


@pytest.mark.parametrize("value", [0.02, 0.3, 0.9])
def test_photon_noise_variance(value: float) -> None:
    clean = grey_card(value)
    image = PoissonNoise(photons=50)(clean, generator(1)).image
    assert image.mean() == pytest.approx(value, rel=0.02)
    assert image.var() == pytest.approx(value / 50, rel=0.03)
    both = PoissonGaussianNoise(electrons=50, read_noise=4)(clean, generator(1)).image
    assert both.mean() == pytest.approx(value, rel=0.05)
    assert both.var() == pytest.approx(value / 50 + (4 / 50) ** 2, rel=0.03)


def test_speckle_is_in_proportion_to_the_light() -> None:
    for value in (0.1, 0.8):
        image = SpeckleNoise(strength=0.2)(grey_card(value), generator(1)).image
        assert image.mean() == pytest.approx(value, rel=0.01)
        assert image.std() == pytest.approx(0.2 * value, rel=0.02)


def test_salt_and_pepper_shares() -> None:
    clean = grey_card(0.5)
    image = SaltAndPepper(density=0.2, salt=0.25)(clean, generator(1)).image
    assert (image == 1).float().mean() == pytest.approx(0.05, rel=0.06)
    assert (image == 0).float().mean() == pytest.approx(0.15, rel=0.04)
    assert torch.equal(image[:, 0], image[:, 1])
    apart = SaltAndPepper(density=0.2, per_channel=True)(clean, generator(1)).image
    assert (apart != 0.5).float().mean() == pytest.approx(0.2, rel=0.03)
    assert not torch.equal(apart[:, 0], apart[:, 1])


def test_quantisation_levels() -> None:
    clean = torch.linspace(-0.1, 1.1, 4000).view(1, 1, 40, 100)
    image = Quantisation(levels=5)(clean, generator(1)).image
    assert image.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (image - clean.clamp(0, 1)).abs().max() <= 0.125 + 1e-6
    stored = Quantisation(levels=256)(photos(1), generator(1)).image
    assert torch.allclose(stored, photos(1), atol=1e-6)


def test_correlated_noise_is_weaker_than_its_source_and_reaches_neighbours() -> None:
    clean = grey_card(0.4, batch=2)
    noise = CorrelatedNoise(sigma=40, quality=40)(clean, generator(2)).image - clean
    assert abs(noise.mean()) < 2e-3
    assert 0.3 * 40 / 255 < noise.std() < 40 / 255
    colour = noise - noise.mean(1, keepdim=True)
    assert correlation(colour, 0, 1) > 0.5  # chroma is stored at half the size
    assert abs(correlation(noise, 0, 16)) < 0.03
    # what the codec gives back of a flat grey is that grey
    silent = CorrelatedNoise(sigma=0, quality=10)(clean, generator(2)).image
    assert torch.allclose(silent, clean, atol=1e-6)


def test_varying_noise_follows_its_map() -> None:
    clean = grey_card(0.5, batch=2, size=128)
    image, condition = VaryingGaussianNoise(sigma=(0, 75))(clean, generator(2))
    assert condition is not None
    assert condition.shape == (2, 1, 128, 128)
    assert condition.min() >= 0
    assert condition.max() <= 75 / 255 + 1e-6
    assert (condition[..., 1:] - condition[..., :-1]).abs().max() < 0.02
    standard = (image - clean) / condition.clamp(min=1e-3)
    assert standard[condition.expand_as(image) > 0.02].std() == pytest.approx(1, rel=0.02)
    quiet = condition < condition.median()
    noise = (image - clean).square().mean(1, keepdim=True)
    assert noise[quiet].mean() < 0.5 * noise[~quiet].mean()


def test_film_grain_spectrum_and_tones() -> None:
    grain = FilmGrain(strength=20, size=0.8)
    middle = grain(grey_card(0.5), generator(1)).image - 0.5
    assert middle.std() == pytest.approx(20 / 255, rel=0.03)
    assert torch.allclose(middle[:, 0], middle[:, 1], atol=1e-6)
    # a Gaussian filter of width s correlates neighbours by exp(-1 / 4 s^2)
    assert correlation(middle, 0, 1) == pytest.approx(
        torch.exp(torch.tensor(-1 / (4 * 0.64))).item(), abs=0.03
    )
    dark = grain(grey_card(0.04), generator(1)).image - 0.04
    assert dark.std() == pytest.approx(20 / 255 * 2 * (0.04 * 0.96) ** 0.5, rel=0.03)
    assert torch.equal(grain(grey_card(0.0), generator(1)).image, grey_card(0.0))


def test_low_light_loses_its_stops() -> None:
    clean = grey_card(0.6)
    dark = LowLight(stops=3, electrons=1e6, read_noise=0)(clean, generator(1)).image
    light = ((dark.double() + 0.055) / 1.055).pow(2.4).mean()
    full = ((0.6 + 0.055) / 1.055) ** 2.4
    assert light == pytest.approx(full / 8, rel=0.02)
    noisy = LowLight(stops=3, electrons=500, read_noise=10)(clean, generator(1)).image
    assert torch.allclose(noisy * 255, (noisy * 255).round(), atol=1e-4)


def test_low_light_has_the_noise_of_its_electrons() -> None:
    """In linear light the variance is light / electrons + (read noise / electrons)^2."""
    stored = LowLight(stops=1, electrons=2000, read_noise=20)(grey_card(0.7), generator(1)).image.double()
    light = ((stored + 0.055) / 1.055).pow(2.4)
    expected = ((0.7 + 0.055) / 1.055) ** 2.4 / 2
    assert light.mean() == pytest.approx(expected, rel=0.01)
    assert light.var() == pytest.approx(expected / 2000 + (20 / 2000) ** 2, rel=0.05)
