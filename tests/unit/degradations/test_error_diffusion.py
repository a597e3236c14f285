"""The slanted front gives what the pixel-by-pixel scan gives."""

import math

import pytest
import torch
from photos import generator, photo, photos
from torch import Tensor

from restora.degradations.compression import error_diffusion
from restora.degradations.compression.error_diffusion import Diffusion, ErrorDiffusion

MATRICES = {
    "floyd_steinberg": ([[0, 0, 7], [3, 5, 1]], 16),
    "jarvis_judice_ninke": ([[0, 0, 0, 7, 5], [3, 5, 7, 5, 3], [1, 3, 5, 3, 1]], 48),
    "atkinson": ([[0, 0, 0, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]], 8),
}


def scan(plane: Tensor, levels: int, diffusion: str) -> Tensor:
    """Left to right, top to bottom, one pixel after the other, in Python's floats."""
    matrix, divisor = MATRICES[diffusion]
    centre = len(matrix[0]) // 2
    value = [[float(v) for v in row] for row in plane.double().tolist()]
    height, width = len(value), len(value[0])
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            chosen = min(max(math.floor(value[y][x] * (levels - 1) + 0.5), 0), levels - 1) / (levels - 1)
            error = value[y][x] - chosen
            out[y, x] = chosen
            for dy, row in enumerate(matrix):
                for at, weight in enumerate(row):
                    to = x + at - centre
                    if weight and y + dy < height and 0 <= to < width:
                        value[y + dy][to] += error * weight / divisor
    return out


@pytest.mark.parametrize("diffusion", list(MATRICES))
@pytest.mark.parametrize("levels", [2, 5])
def test_equals_the_scan(diffusion: Diffusion, levels: int) -> None:
    for x in (photo(height=37, width=29), photo(height=3, width=41), photo(height=20, width=2)):
        ours = ErrorDiffusion(levels=levels, diffusion=diffusion)(x, generator(1)).image
        for channel in range(3):
            assert torch.equal(ours[0, channel], scan(x[0, channel], levels, diffusion))


def test_grey_is_kept_on_average() -> None:
    for value in (0.1, 0.37, 0.8):
        flat = torch.full((1, 1, 96, 96), value)
        image = ErrorDiffusion()(flat, generator(1)).image
        assert image.unique().tolist() == [0, 1]
        assert image.mean() == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize("diffusion", list(MATRICES))
def test_without_float64_few_pixels_fall_to_another_level(
    diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of MPS, which has none."""
    x = photos(6, 120, 150)
    dithering = ErrorDiffusion(levels=(2, 8), diffusion=diffusion)
    expected = dithering(x, generator(6)).image
    assert error_diffusion.widest(torch.device("mps")) == torch.float32
    monkeypatch.setattr(error_diffusion, "widest", lambda device: torch.float32)
    image = dithering(x, generator(6)).image
    assert ((image - expected).abs() > 1 / 255).float().mean() < 0.03
    assert torch.allclose(image.mean((2, 3)), expected.mean((2, 3)), atol=1e-4)


@pytest.mark.parametrize("diffusion", list(MATRICES))
def test_the_error_is_blue(diffusion: Diffusion) -> None:
    """Pushed to high frequencies, where rounding with white noise would leave as much at all of them."""
    flat = torch.full((4, 1, 128, 128), 0.4)
    error = ErrorDiffusion(diffusion=diffusion)(flat, generator(4)).image - flat
    power = torch.fft.fft2(error - error.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    radius = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(128)[None])
    assert power[(radius > 0) & (radius < 0.1)].mean() < 0.05 * power[radius > 0.25].mean()


def test_levels_are_per_sample() -> None:
    x = photos(8, 24, 24)
    dithering = ErrorDiffusion(levels=(2, 6))
    params = dithering.sample(tuple(x.shape), generator(8))
    image = dithering.apply(x, params)
    assert len(params["levels"].unique()) > 2
    for b in range(8):
        steps = params["levels"][b] - 1
        assert torch.allclose(image[b] * steps, (image[b] * steps).round(), atol=1e-5)
    with pytest.raises(ValueError, match="atkinson"):
        ErrorDiffusion(diffusion="stucki")  # type: ignore[arg-type]
