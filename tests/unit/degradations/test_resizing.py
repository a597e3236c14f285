"""Resizing against the definition, pixel by pixel, and against the published figures."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from photos import generator, photo, photos
from PIL import Image
from torch import Tensor

from restora.degradations.blur.pixel_shift import PixelShift
from restora.degradations.sampling.downsample import Downsample
from restora.degradations.sampling.low_resolution import LowResolution
from restora.degradations.sampling.varying_resizing import apply_matrices, interpolation_matrices
from restora.image import Kernel, resize


def keys_cubic(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def tent(t: float) -> float:
    return max(0.0, 1 - abs(t))


def resize_row(row: list[float], size: int, kernel: str) -> list[float]:
    """One line of pixels, by the definition of the kernel with anti-aliasing and mirrored borders."""
    n, step = len(row), len(row) / size
    out = []
    for i in range(size):
        if kernel == "nearest":
            out.append(row[min(n - 1, int((i + 0.5) * step))])
            continue
        total = weights = 0.0
        if kernel == "area":
            for j in range(n):
                weight = max(0.0, min((i + 1) * step, j + 1) - max(i * step, j))
                total, weights = total + weight * row[j], weights + weight
        else:
            function, support = (keys_cubic, 2) if kernel == "bicubic" else (tent, 1)
            widen = max(1.0, step)
            centre = (i + 0.5) * step - 0.5
            for j in range(math.floor(centre - support * widen), math.ceil(centre + support * widen) + 1):
                weight = function((j - centre) / widen)
                inside = j % (2 * n)
                inside = min(inside, 2 * n - 1 - inside)
                total, weights = total + weight * row[inside], weights + weight
        out.append(total / weights)
    return out


def reference(x: Tensor, height: int, width: int, kernel: str) -> Tensor:
    columns = [resize_row(list(column), height, kernel) for column in x.T.tolist()]
    return torch.tensor([resize_row(list(row), width, kernel) for row in zip(*columns, strict=True)])


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area", "nearest"])
@pytest.mark.parametrize("size", [(12, 14), (8, 28), (17, 9), (3, 2), (60, 37), (24, 28)])
def test_equals_the_definition(kernel: Kernel, size: tuple[int, int]) -> None:
    x = photo(height=24, width=28)[:, :1]
    assert torch.allclose(
        resize(x, *size, kernel=kernel)[0, 0], reference(x[0, 0], *size, kernel), atol=1e-3 / 255
    )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_equals_pillow(mode: Kernel) -> None:
    """Pillow anti-aliases with the same kernels and cuts them at the border instead of mirroring."""
    x = photo()[:, 1:2]
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    pillow = np.asarray(Image.fromarray(x[0, 0].numpy()).resize((37, 41), resample))
    ours = resize(x, 41, 37, kernel=mode)[0, 0]
    assert np.abs(pillow - ours.numpy())[3:-3, 3:-3].max() < 1e-3 / 255


def test_resizing_keeps_constants_and_stays_in_full_precision() -> None:
    flat = torch.full((2, 3, 30, 20), 0.37)
    for kernel in ("bicubic", "bilinear", "area", "nearest"):
        assert torch.allclose(resize(flat, 11, 47, kernel=kernel), torch.tensor(0.37), atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize(photos(1), 13, 17), resize(photos(1).clone(), 13, 17))
        assert resize(photos(1), 13, 17).dtype == torch.float32
    with pytest.raises(ValueError, match="bicubic"):
        resize(flat, 10, 10, kernel="lanczos")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "published"), [(2, 33.682), (3, 30.405), (4, 28.431)])
def test_bicubic_figures_of_set5(scale: int, published: float, development_data: Path) -> None:
    weights = torch.tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    scores = []
    for path in sorted((development_data / "testsets" / "Set5").iterdir()):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
        height, width = (n // scale * scale for n in pixels.shape[:2])
        clean = pixels[:height, :width].permute(2, 0, 1)[None].float() / 255
        enlarged = Downsample(scale=scale, restore_size=True)(clean, generator(1)).image
        enlarged = (enlarged * 255).round().clamp(0, 255) / 255
        error = ((clean - enlarged) * weights).sum(1)[:, scale:-scale, scale:-scale]
        scores.append(10 * math.log10(255**2 / error.double().square().mean().item()))
    assert len(scores) == 5
    assert sum(scores) / 5 == pytest.approx(published, abs=0.001)


def test_downsample_rounds_and_refuses() -> None:
    clean = photos(2)
    stored = Downsample(scale=2)(clean, generator(2)).image
    assert stored.shape == (2, 3, 24, 30)
    assert torch.allclose(stored * 255, (stored * 255).round(), atol=1e-4)
    exact = Downsample(scale=2, round_8bit=False)(clean, generator(2)).image
    assert 0 < (exact - stored).abs().max() < 0.55 / 255 + (exact - exact.clamp(0, 1)).abs().max()
    with pytest.raises(ValueError, match="multiple"):
        Downsample(scale=5)(clean, generator(2))
    assert Downsample(scale=7, restore_size=True)(clean, generator(2)).image.shape == clean.shape


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_sizes_of_their_own_on_one_canvas(mode: str) -> None:
    """Every sample of the canvas equals torch's interpolation of that sample alone."""
    torch.manual_seed(0)
    sizes, targets = [40, 37, 21, 5, 40, 12], [60, 20, 21, 9, 7, 30]
    canvas = torch.rand(6, 3, 40, 40)
    code = torch.full((6,), ("area", "bilinear", "bicubic").index(mode))
    matrix = interpolation_matrices(60, 40, torch.tensor(targets).float(), torch.tensor(sizes).float(), code)
    out = apply_matrices(canvas, matrix, matrix)
    for b, (size, target) in enumerate(zip(sizes, targets, strict=True)):
        own = canvas[b : b + 1, :, :size, :size]
        alone = F.interpolate(own, size=(target, target), mode=mode)
        assert torch.allclose(out[b : b + 1, :, :target, :target], alone, atol=1e-5)
        beyond = out[b, :, target - 1 :, :target]
        assert torch.allclose(beyond, beyond[:, :1].expand_as(beyond), atol=1e-5)


def test_low_resolution_loses_what_the_factor_says() -> None:
    clean = photos(2, 64, 64)
    assert torch.allclose(LowResolution(factor=1)(clean, generator(2)).image, clean, atol=1e-5)
    quarter = LowResolution(factor=4)(clean, generator(2)).image
    usual = resize(resize(clean, 16, 16), 64, 64)
    # borders differ: weights are shared out instead of mirrored
    assert torch.allclose(quarter[..., 16:-16, 16:-16], usual[..., 16:-16, 16:-16], atol=2e-3)
    assert torch.allclose(quarter[..., 28:-28, 28:-28], usual[..., 28:-28, 28:-28], atol=1e-5)


def test_whole_shifts_are_exact_and_halves_are_cubic() -> None:
    clean = photos(1)
    moved = PixelShift(shift=2)(clean, generator(1)).image
    assert torch.allclose(moved[..., 2:, 2:], clean[..., :-2, :-2], atol=1e-6)
    ramp = torch.linspace(0.1, 0.9, 60).expand(1, 1, 48, 60)
    half = PixelShift(shift=0.5)(ramp, generator(1)).image
    step = 0.8 / 59
    assert torch.allclose(half[..., 4:-4], ramp[..., 4:-4] - step / 2, atol=1e-5)
