"""A camera's noise: what a mosaic measures comes back where a photo is plain; noise follows the light."""

import pytest
import torch

from restora.degradations.noise.camera_noise import CameraNoise, _places, _toned, _untoned, demosaiced
from restora.keyed import KeyedGenerator

KEYS = KeyedGenerator(torch.arange(8))
SILENT = CameraNoise(shot_noise=1e-8)


def sampled(photo: torch.Tensor, corner: int) -> torch.Tensor:
    """(1,3,H,W) -> what a Bayer sensor reads of it, demosaiced again."""
    red, blue = _places(torch.tensor([corner]), photo.shape[-2:])
    mosaic = torch.where(red, photo[:, :1], torch.where(blue, photo[:, 2:], photo[:, 1:2]))
    assert (red.float().mean(), blue.float().mean()) == (0.25, 0.25)
    return demosaiced(mosaic, red, blue)


@pytest.mark.parametrize("corner", range(4))
def test_flat_colours_and_grey_slopes_come_back_whole(corner: int) -> None:
    flat = torch.tensor([0.2, 0.5, 0.9])[None, :, None, None].expand(1, 3, 12, 14)
    torch.testing.assert_close(sampled(flat, corner), flat, atol=1e-6, rtol=0)
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    slope = (0.02 * rows + 0.03 * columns)[None, None].expand(1, 3, 12, 14)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(sampled(slope, corner)[inner], slope[inner], atol=1e-6, rtol=0)


def test_tones_are_undone_and_done_again() -> None:
    tones = torch.linspace(0, 1, 50)
    torch.testing.assert_close(_toned(_untoned(tones)), tones, atol=2e-4, rtol=0)


def test_without_noise_a_smooth_photo_stays() -> None:
    photo = torch.linspace(0.1, 0.9, 24).expand(8, 3, 24, 24)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(SILENT(photo, KEYS).image[inner], photo[inner], atol=0.01, rtol=0)


def test_noise_has_the_variance_of_its_light_and_colours_follow_their_gains() -> None:
    keys = KeyedGenerator(torch.arange(4))
    degradation = CameraNoise(shot_noise=0.001)
    grey = torch.full((4, 1, 64, 64), 0.5)
    light = _untoned(grey[0, 0, 0, 0])
    read = degradation.sample((4, 1, 64, 64), keys)["read"]
    noisy = _untoned(degradation(grey, keys).image)
    expected = light * 0.001 + read
    torch.testing.assert_close(noisy.var(dim=(1, 2, 3)), expected, rtol=0.15, atol=0)
    colours = degradation(torch.full((4, 3, 64, 64), 0.5), keys).image.std(dim=(0, 2, 3))
    assert colours[0] > colours[1]  # red is amplified, green is not
    assert colours[2] > colours[1]
