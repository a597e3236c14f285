"""The estimated noise level of photos with known noise."""

import numpy as np
import pytest
import skimage.data
import torch

from restora.artifact.noise_level import network_noise_level, noise_level
from restora.artifact.photo_pixels import estimated_sigma
from restora.photos.files import Photo


@pytest.mark.parametrize("sigma", [5, 15, 30])
@pytest.mark.slow
def test_known_noise_is_found(sigma: float) -> None:
    errors = []
    for seed, photo in enumerate((skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea())):
        noise = np.random.default_rng(seed).normal(0, sigma, (256, 256, 3))
        noisy = np.clip(np.round(photo[:256, :256] + noise), 0, 255)
        errors.append(noise_level(torch.from_numpy(noisy).permute(2, 0, 1) / 255) - sigma)
    assert np.abs(errors).mean() < max(0.06 * sigma, 0.8), errors


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_that_is_equal_in_all_channels_counts_as_more_for_a_network_of_colours(channels: int) -> None:
    """Its mean over the channels is that of independent noise of a level higher by the root of 3."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.3, 0.7, 128).expand(3, 128, 128)
    independent = ramp + 10 / 255 * torch.randn(3, 128, 128, generator=generator)
    equal = ramp + 10 / 255 * torch.randn(1, 128, 128, generator=generator)
    factor = 3**0.5 if channels == 3 else 1
    assert network_noise_level(independent, channels) == pytest.approx(10, abs=0.6)
    assert network_noise_level(equal, channels) == pytest.approx(10 * factor, abs=0.6 * factor)
    assert network_noise_level(equal[:1], channels) == pytest.approx(10 * factor, abs=0.6 * factor)


def test_a_photo_without_noise_has_little_and_a_tiny_one_is_refused() -> None:
    ramp = torch.linspace(0.1, 0.9, 64).expand(1, 64, 64)
    assert noise_level(ramp) < 0.01
    with pytest.raises(ValueError, match="is too small to estimate its noise level .10x12 pixels"):
        noise_level(torch.rand(3, 12, 10))


def test_a_border_and_invisible_pixels_do_not_count() -> None:
    noisy = 0.5 + torch.randn(1, 96, 96, generator=torch.Generator().manual_seed(0)) * 15 / 255
    framed = noisy.clone()
    framed[:, :40], framed[:, :, 60:] = 0.9, 0.9
    assert noise_level(framed) == pytest.approx(15, rel=0.1)
    pixels = (noisy * 255).round().byte().permute(1, 2, 0).numpy()
    alpha = np.zeros((96, 96), np.uint8)
    alpha[20:76, 20:76] = 255
    assert estimated_sigma(Photo(pixels, alpha), channels=1) == pytest.approx(15, rel=0.15)
