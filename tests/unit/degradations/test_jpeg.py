"""JPEG is libjpeg's, bit for bit."""

import io
import math

import numpy as np
import pytest
import torch
from photos import generator, photo, photos
from PIL import Image
from scipy.fft import dctn
from torch import Tensor

from restora.degradations.compression.jpeg import Jpeg, Subsampling, jpeg
from restora.degradations.noise.correlated_noise import CorrelatedNoise


def by_libjpeg(x: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """(1,C,H,W) through Pillow's libjpeg."""
    pixels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "JPEG", quality=quality, subsampling={"4:2:0": 2, "4:4:4": 0}[subsampling])
    decoded = np.asarray(Image.open(buffer)).reshape(pixels.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1)[None]


def pictures() -> dict[str, Tensor]:
    noise = torch.randint(0, 256, (1, 3, 40, 56), generator=torch.Generator().manual_seed(0)) / 255
    # the signs of every pair of cosines: the largest coefficients that there are, of either sign
    cosines = torch.cos(torch.arange(8)[:, None] * (torch.arange(8) + 0.5) * math.pi / 8)
    blocks = (cosines[:, None, :, None] * cosines[None, :, None, :] > 0).float()
    signs = torch.cat((blocks, 1 - blocks)).permute(0, 2, 1, 3).reshape(1, 1, 128, 64)
    return {
        "signs": signs.contiguous(),
        "signs in colour": torch.cat((signs, signs.flip(2), signs.flip(3)), 1),
        "photo": photo(),
        "odd": photo("coffee.png", 67, 45),
        "tiny": photo("chelsea.png", 9, 3),
        "grey": photo("camera.png", 51, 70)[:, :1].contiguous(),
        "noise": noise,
        "black and white": (noise > 0.5).float(),
    }


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("name", list(pictures()))
def test_equals_libjpeg(name: str, subsampling: Subsampling) -> None:
    x = pictures()[name]
    for quality in (1, 2, 5, 10, 40, 50, 80, 95, 100):
        ours = (jpeg(x, torch.tensor([quality]), subsampling=subsampling) * 255).round().byte()
        difference = ours.int() - by_libjpeg(x, quality, subsampling).int()
        # another libjpeg than the one with these integer transforms would differ here and there by one
        assert difference.abs().max() == 0, f"quality {quality}: off by {int(difference.abs().max())}"


def test_quality_is_per_sample() -> None:
    x = photos(3)
    together = jpeg(x, torch.tensor([10, 40, 90]))
    for b, quality in enumerate((10, 40, 90)):
        assert torch.equal(together[b : b + 1], jpeg(x[b : b + 1], torch.tensor([quality])))
    errors = (together - x).square().flatten(1).mean(1)
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_a_cropped_photo_has_blocks_that_begin_outside_it(subsampling: Subsampling) -> None:
    """Equal to libjpeg's output for the whole photo, where that repeats the first row and column."""
    x = photos(4)[..., :43, :51].contiguous()
    degradation = Jpeg(quality=[10, 60], subsampling=subsampling, cropped=[0, 15])
    params = degradation.sample(x.shape, generator(4))
    drawn = params["cropped"]
    assert drawn.shape == (4, 2)
    assert len(set(drawn.flatten().tolist())) > 3
    out = degradation.apply(x, params)
    for b in range(4):
        down, right = drawn[b].tolist()
        whole = torch.nn.functional.pad(x[b : b + 1], (right, 0, down, 0), mode="replicate")
        saved = by_libjpeg(whole, int(params["quality"][b]), subsampling)[..., down:, right:]
        assert torch.equal((out[b : b + 1] * 255).round().byte(), saved)


def test_without_cropping_the_same_numbers_are_drawn_as_ever() -> None:
    x = photos(4)
    assert Jpeg(quality=[5, 95]).sample(x.shape, generator(4)).keys() == {"quality"}


def test_high_frequencies_are_lost_first() -> None:
    """Of white noise: every coefficient of the coarse table that is rounded to nothing takes its power."""
    noise = 0.5 + 0.06 * torch.randn(4, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    blocks = jpeg(noise, torch.full((4,), 20)).sub(0.5).unfold(2, 8, 8).unfold(3, 8, 8)
    power = torch.from_numpy(dctn(blocks.numpy(), axes=(-2, -1), norm="ortho")).square().mean((0, 1, 2, 3))
    assert power[:2, :2].mean() > 3 * power[:4, 4:].mean() > 3 * power[6:, 6:].mean()


def test_input_outside_the_range_is_clipped() -> None:
    x = photos(1)
    wild = x.clone()
    wild[..., :10, :] = 1.7
    tame = x.clone()
    tame[..., :10, :] = 1.0
    assert torch.equal(jpeg(wild, torch.tensor([50])), jpeg(tame, torch.tensor([50])))


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="quality"):
        Jpeg(quality=0)
    with pytest.raises(ValueError, match="4:2:0"):
        Jpeg(quality=50, subsampling="4:1:1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cropped.*15"):
        Jpeg(quality=50, cropped=16)
    with pytest.raises(ValueError, match="channels"):
        Jpeg(quality=50)(torch.zeros(1, 2, 16, 16), generator(1))
    with pytest.raises(ValueError, match="JPEG photos have 1 or 3 channels, got 6"):
        CorrelatedNoise(sigma=10, quality=50)(torch.zeros(1, 6, 16, 16), generator(1))
