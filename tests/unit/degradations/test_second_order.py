"""Real-ESRGAN's degradation, piece by piece and as a whole."""

import pytest
import torch
from photos import generator, grey_card, photo, photos

from restora.degradations.base import Params
from restora.degradations.blur.anisotropic_blur import AnisotropicBlur
from restora.degradations.blur.sinc_blur import SincBlur
from restora.degradations.compose.second_order import Order, SecondOrder, _distinct, _power_of_two, noisy


def order(**changes: object) -> Order:
    settings: dict[str, object] = {
        "blur": AnisotropicBlur(sigma=(0.2, 2.0), size=(7, 13)),
        "blur_probability": 0.8,
        "resize": [0.2, 0.7, 0.1],
        "resize_range": [0.3, 1.5],
        "gaussian_probability": 0.5,
        "sigma": [1, 30],
        "poisson_strength": [0.05, 3.0],
        "grey_probability": 0.4,
        "quality": [30, 95],
    }
    return Order(**(settings | changes))  # type: ignore[arg-type]


def second_order(scale: int = 2, **changes: object) -> SecondOrder:
    return SecondOrder(
        scale=scale,
        first=order(**changes),
        second=order(**changes),
        ringing=SincBlur(cutoff=(1.1, 3.1), size=(7, 13)),
        ringing_probability=0.8,
    )


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_size_grid_and_variety(scale: int) -> None:
    clean = photos(6, 48, 64)
    image, condition = second_order(scale)(clean, generator(6))
    assert condition is None
    assert image.shape == (6, 3, 48 // scale, 64 // scale)
    assert torch.allclose(image * 255, (image * 255).round(), atol=1e-4)
    same = photos(1, 48, 64).expand(6, -1, -1, -1).contiguous()
    drawn = second_order(scale)(same, generator(6)).image
    small = torch.nn.functional.interpolate(same, scale_factor=1 / scale, mode="area")
    errors = (drawn - small).square().flatten(1).mean(1)
    assert errors.max() > 2 * errors.min()  # every sample has a degradation of its own
    assert errors.max() < 0.1


def test_nothing_to_do_leaves_the_photo_to_the_codec() -> None:
    """Without blur, resize, noise, ringing and loss of quality, all that is left is halved chroma."""
    nothing = {
        "blur_probability": 0.0,
        "resize": [0, 0, 1],
        "gaussian_probability": 1.0,
        "sigma": 0,
        "quality": 100,
    }
    quiet = SecondOrder(
        scale=1,
        first=order(**nothing),
        second=order(**nothing),
        ringing=SincBlur(),
        ringing_probability=0.0,
        sharpen=False,
    )
    grey = photo(height=64, width=64).mean(1, keepdim=True).mul(255).round().div(255).expand(-1, 3, -1, -1)
    assert (quiet(grey, generator(1)).image - grey).abs().max() < 4.5 / 255


@pytest.mark.parametrize("size", [(48, 64), (50, 74), (96, 96)])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.slow
def test_less_canvas_changes_nothing(
    scale: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that are not enlarged are computed apart on a CPU, on as much canvas as they need."""
    degradation, clean = second_order(scale, resize=[0.4, 0, 0.6]), photos(8, *size)
    factor = degradation.sample((8, 3, *size), generator(8))["first"]["factor"]
    assert 0 < (factor > 1).sum() < 8
    apart = degradation(clean, generator(8)).image

    def on_the_whole_canvas(x: torch.Tensor, params: Params) -> torch.Tensor:
        return degradation._between_blur_and_noise(x, params, degradation.first.resize_range[1])

    monkeypatch.setattr(degradation, "_enlarged_apart", on_the_whole_canvas)
    together = degradation(clean, generator(8)).image
    assert together.isfinite().all()
    # a last bit of a matrix product may turn a rounding to 8 bits
    assert (apart != together).float().mean() < 1e-3
    assert (apart - together).abs().max() < 6 / 255


def noise_params(gaussian: bool, grey: bool, strength: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "key": generator(1).next_keys(),
        "sigma": torch.tensor([20 / 255]),
        "gaussian": torch.tensor([gaussian]),
        "grey": torch.tensor([grey]),
        "strength": torch.tensor([strength]),
    }


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("gaussian", [False, True])
def test_noise_kinds(gaussian: bool, grey: bool) -> None:
    x = grey_card(0.5)
    noise = noisy(x, noise_params(gaussian, grey), x.shape[-2:]) - x
    assert torch.equal(noise[:, 0], noise[:, 1]) == grey
    # a flat photo has one value, so its Poisson noise is that of a single photon at white
    expected = 20 / 255 if gaussian else None
    if expected:
        assert noise.std() == pytest.approx(expected, rel=0.02)


def test_poisson_strength_and_photons() -> None:
    """A photo with all 256 values has 256 photons at white: variance strength^2 x / 256."""
    x = grey_card(0.5)
    x[:, :, 0] = torch.arange(256).view(1, 1, 256) / 255
    noise = (noisy(x, noise_params(False, False, 2.0), x.shape[-2:]) - x)[:, :, 1:]
    assert abs(noise.mean()) < 2e-3
    assert noise.var() == pytest.approx(4 * 0.5 / 256, rel=0.03)


def test_distinct_values_and_their_power_of_two() -> None:
    pixels = torch.zeros(3, 1, 20, 20)
    pixels[1] = (torch.arange(400) % 130).view(20, 20).float()
    pixels[2] = (torch.arange(400) % 256).view(20, 20).float()
    count = _distinct(pixels)
    assert count.tolist() == [1, 130, 256]
    assert _power_of_two(count).tolist() == [1, 256, 256]
    every = torch.arange(1, 257).float()
    assert torch.equal(_power_of_two(every), torch.exp2(torch.log2(every.double()).ceil()).float())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="three chances"):
        order(resize=[1, 2])
    with pytest.raises(ValueError, match="must contain 1"):
        order(resize_range=[0.2, 0.9])
    with pytest.raises(ValueError, match="scale"):
        second_order(0)
