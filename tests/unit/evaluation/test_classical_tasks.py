"""Deconvolution, inpainting and enlargement: each method beats its input, and knows what it should know."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from restora.degradations.missing.brush_strokes import BrushStrokes
from restora.evaluation.benchmarks.base import Benchmark, Intake
from restora.evaluation.benchmarks.deblur import Deblur
from restora.evaluation.benchmarks.degraded import Inpaint
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.super_resolution import SuperResolution
from restora.evaluation.classical import METHODS, Known, deblur, estimated_sigma
from restora.evaluation.classical.denoise import Photo
from restora.evaluation.classical.enlarge import bicubic
from restora.evaluation.methods import ClassicalMethod
from restora.evaluation.run import Work, score
from restora.image import resize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photo of 96x112, full of detail."""
    root = tmp_path_factory.mktemp("photo")
    Image.fromarray(np.ascontiguousarray(data.astronaut()[60:156, 130:242])).save(root / "a.png")
    return root


def gain(benchmark: Benchmark, name: str) -> float:
    """dB over the input."""
    row = score(Work(ClassicalMethod(name, benchmark.task), benchmark, ("psnr",)), 0)
    return row["psnr"] - row["input_psnr"]


@pytest.mark.parametrize("name", METHODS["deblur"])
@pytest.mark.parametrize(("blur", "width", "color"), [("gaussian", 1.6, "rgb"), ("disc", 3.0, "gray")])
@pytest.mark.slow
def test_deconvolution_gains(name: str, blur: str, width: float, color: str, folder: Path) -> None:
    benchmark = Deblur(root=str(folder), color=color, blur=blur, width=width, sigma=1.0)
    assert gain(benchmark, name) > 1.5


@pytest.mark.parametrize("name", ["wiener_deconvolution", "richardson_lucy"])
def test_deconvolution_undoes_motion(name: str, folder: Path) -> None:
    benchmark = Deblur(root=str(folder), color="gray", blur="motion", width=9.0, angle=30.0, sigma=1.0)
    assert gain(benchmark, name) > 1.5


@pytest.mark.parametrize("name", ["inverse_filter", "wiener_deconvolution"])
def test_without_blur_or_noise_deconvolution_gives_the_photo_back(name: str, folder: Path) -> None:
    photo = np.asarray(Image.open(folder / "a.png")) / 255
    restored = getattr(deblur, name)(photo, np.array([[0, 0, 0], [0, 1.0, 0], [0, 0, 0]]), 0.0)
    assert np.abs(restored - photo).max() < 0.01


def test_margins_leave_no_seam(folder: Path) -> None:
    """The error of a deconvolved photo is no larger along its borders than inside."""
    benchmark = Deblur(root=str(folder), color="gray", blur="gaussian", width=1.6, sigma=1.0)
    observation = benchmark.observe(0, Intake())
    restored = ClassicalMethod("wiener_deconvolution", "deblur").restore(observation)
    error = (restored - observation.clean).square()[0, 0]
    border = torch.ones_like(error, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert error[border].mean() < 3 * error[~border].mean()


@pytest.mark.parametrize("name", METHODS["inpaint"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_inpainting_fills_what_is_lost(name: str, color: str, folder: Path) -> None:
    if name in ("navier_stokes", "telea"):
        pytest.importorskip("cv2")
    degradation = BrushStrokes(strokes=2, width=(0.02, 0.05), fill=0.0)
    assert gain(Inpaint(root=str(folder), color=color, degradation=degradation), name) > 8


@pytest.mark.parametrize("name", ["total_variation", "nl_means", "bilateral"])
def test_denoisers_help_against_jpeg(name: str, folder: Path) -> None:
    assert gain(Jpeg(root=str(folder), color="gray", quality=10), name) > 0.3


def test_interpolations_rank_as_known(folder: Path) -> None:
    benchmark = SuperResolution(root=str(folder), color="y", scale=2)
    gains = {name: gain(benchmark, name) for name in METHODS["super_resolution"]}
    assert gains["bicubic"] == pytest.approx(0, abs=1e-4)  # bicubic is what the input is scored as
    assert gains["bilinear"] < -0.5
    assert abs(gains["lanczos"]) < 1.0


def test_bicubic_is_matlabs() -> None:
    small = np.random.default_rng(0).random((9, 11, 3))
    expected = resize(torch.from_numpy(small).float().permute(2, 0, 1)[None], 27, 33)
    np.testing.assert_allclose(bicubic(small, 3), expected[0].permute(1, 2, 0).numpy(), atol=1e-6)


@pytest.mark.parametrize("sigma", [5.0, 25.0])
def test_an_unknown_noise_level_is_estimated(sigma: float) -> None:
    clean = data.coffee()[100:300, 100:300] / 255
    noisy = clean + np.random.default_rng(0).normal(0, sigma / 255, clean.shape)
    assert estimated_sigma(noisy) == pytest.approx(sigma, rel=0.25)


def test_a_clean_photo_is_left_alone() -> None:
    photo = np.full((16, 16, 3), 0.5)
    np.testing.assert_array_equal(METHODS["denoise"]["gaussian"](photo, Known(sigma=0.0)), photo)


def test_sharpening_helps_a_blurred_photo_of_unknown_blur() -> None:
    clean = data.coffee()[100:300, 100:300] / 255
    blurred = np.stack([gaussian_filter(clean[..., channel], 1.2) for channel in range(3)], axis=-1)
    blurred = blurred + np.random.default_rng(0).normal(0, 2 / 255, clean.shape)

    def error(photo: Photo) -> float:
        return float(np.mean((photo - clean) ** 2))

    by = METHODS["restore"]
    assert error(by["sharpened_wavelet"](blurred, Known())) < 0.8 * error(by["wavelet"](blurred, Known()))
    flat = np.full((16, 16, 1), 0.5)
    np.testing.assert_allclose(by["sharpened_wavelet"](flat, Known()), flat, atol=1e-12)
