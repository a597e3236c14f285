"""Settings that have no meaning are refused where a degradation is made, not taken for others."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from restora.degradations.base import Degradation
from restora.degradations.blur.anisotropic_blur import AnisotropicBlur
from restora.degradations.blur.camera_shake import CameraShake
from restora.degradations.blur.motion_blur import MotionBlur
from restora.degradations.blur.sinc_blur import SincBlur
from restora.degradations.colour.sepia import Sepia
from restora.degradations.compose.composition import OneOf
from restora.degradations.compose.second_order import Order, SecondOrder
from restora.degradations.compression.error_diffusion import ErrorDiffusion
from restora.degradations.compression.jpeg import Jpeg
from restora.degradations.identity import Identity
from restora.degradations.missing.brush_strokes import BrushStrokes
from restora.degradations.missing.holes import Holes
from restora.degradations.missing.random_rectangles import RandomRectangles
from restora.degradations.missing.scratches import Scratches
from restora.degradations.missing.text_overlay import TextOverlay
from restora.degradations.noise.film_grain import FilmGrain
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.noise.poisson_noise import PoissonNoise
from restora.degradations.noise.varying_gaussian_noise import VaryingGaussianNoise
from restora.degradations.sampling.low_resolution import LowResolution
from restora.keyed import KeyedGenerator

INF = math.inf
TWO = {"a": Identity(), "b": Identity()}


@pytest.mark.parametrize("sigma", [0.1, [0, 0.2]])
@pytest.mark.parametrize(
    "make",
    [
        GaussianNoise,
        VaryingGaussianNoise,
        lambda sigma: FilmGrain(strength=sigma),
        lambda sigma: order(sigma=sigma),
    ],
)
def test_levels_of_the_0_to_1_scale_are_refused_with_those_of_the_8_bit_one(
    make: Callable, sigma: Any
) -> None:
    with pytest.raises(ValueError, match=r"8-bit scale, .* of \[0,1\] is (25\.5|51)$"):
        make(sigma=sigma)
    make(sigma=0.555)  # of BM3D's deblurring


def order(**changed: Any) -> Order:
    usual: dict[str, Any] = {
        "blur": SincBlur(size=7),
        "blur_probability": 1.0,
        "resize": [0.2, 0.7, 0.1],
        "resize_range": [0.15, 1.5],
        "gaussian_probability": 0.5,
        "sigma": [1, 30],
        "poisson_strength": [0.05, 3.0],
        "grey_probability": 0.4,
        "quality": [30, 95],
    }
    return Order(**(usual | changed))


def second_order(*, ringing_probability: float) -> SecondOrder:
    return SecondOrder(
        scale=4,
        first=order(),
        second=order(),
        ringing=SincBlur(size=7),
        ringing_probability=ringing_probability,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(sigma=[0, INF]), r"sigma .* of at least 0, got \[0, inf\]"),
        (
            lambda: MotionBlur(length=3, angle=INF),
            r"angle must be a number or a range \[low, high\], got inf",
        ),
        (lambda: AnisotropicBlur(sigma=2, size=20), r"size must be an odd number .* got 20"),
        (lambda: AnisotropicBlur(sigma=2, size=[7, 20.5]), r"size must be a whole number .* got \[7, 20.5\]"),
        (lambda: SincBlur(size=[7, 20]), r"size must be an odd number or a range .* got \[7, 20\]"),
        (lambda: CameraShake(extent=3, impulse=INF), "impulse .* at least 0, got inf"),
        (lambda: Scratches(tilt=90), r"tilt must be a number within \[0, 80\], got 90"),
        (lambda: TextOverlay(tilt=-1), r"tilt must be a number within \[0, 180\], got -1"),
        (lambda: RandomRectangles(fill=255), r"fill must be a number within \[0, 1\], got 255"),
        (lambda: BrushStrokes(fill=INF), r"fill must be a number within \[0, 1\], got inf"),
        (lambda: Holes(stage=Scratches(), fill=-1), r"fill must be a number within \[0, 1\], got -1"),
        (lambda: OneOf(stages=TWO, weights={"a": 1, "b": INF}), "weights must be numbers >= 0, not all 0"),
        (lambda: OneOf(stages=TWO, weights={"a": 0, "b": 0}), "weights must be numbers >= 0, not all 0"),
        (lambda: order(blur_probability=1.5), r"blur_probability must be a number within \[0, 1\], got 1.5"),
        (lambda: order(gaussian_probability=-1), "gaussian_probability must be"),
        (lambda: order(grey_probability=INF), "grey_probability must be"),
        (lambda: order(resize=[1, INF, 1]), "resize must be three chances"),
        (lambda: second_order(ringing_probability=2), "ringing_probability must be"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    drawn = GaussianNoise(sigma=np.float32(25)).sample((1, 3, 8, 8), keyed(1))
    assert torch.equal(drawn["sigma"], GaussianNoise(sigma=25).sample((1, 3, 8, 8), keyed(1))["sigma"])
    GaussianNoise(sigma=[np.int64(5), np.float32(50)])
    with pytest.raises(ValueError, match="sigma must be a number .* got '25'"):
        GaussianNoise(sigma="25")


def keyed(count: int) -> KeyedGenerator:
    return KeyedGenerator(torch.arange(count))


PHOTOS = torch.rand(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("photos", "generator", "message"),
    [
        ((PHOTOS * 255).byte(), keyed(2), r"use photo\.float\(\)/255"),
        (PHOTOS[0], keyed(1), r"use photo\[None\]"),
        (PHOTOS.numpy(), keyed(2), "got ndarray"),
        (PHOTOS, torch.Generator(), r"is keyed, got Generator: use KeyedGenerator\(keys\)"),
        (PHOTOS, keyed(1), "1 keys for 2 photos"),
        (PHOTOS, keyed(3), "3 keys for 2 photos"),
        (PHOTOS.double(), keyed(2), r"give float32 photos, photos\.float\(\)"),
    ],
)
def test_photos_and_generators_of_a_loop_of_ones_own_are_checked(
    photos: Any, generator: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianNoise(sigma=25)(photos, generator)


@pytest.mark.parametrize("degradation", [Jpeg(quality=50), LowResolution(factor=2), Sepia()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_photos_of_another_precision_are_refused_by_every_degradation(
    degradation: Degradation, dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=r"takes float32 photos, got torch\.\w+: .* photos\.float\(\)"):
        degradation(PHOTOS.to(dtype), keyed(2))


@pytest.mark.parametrize("degradation", [PoissonNoise(photons=[1, 99]), ErrorDiffusion(), Jpeg(quality=50)])
def test_photos_that_require_gradients_are_degraded_like_others(degradation: Degradation) -> None:
    image = degradation(PHOTOS.clone().requires_grad_(), keyed(2)).image
    assert torch.equal(image, degradation(PHOTOS, keyed(2)).image)


def test_keys_that_are_no_tensor_are_named() -> None:
    with pytest.raises(ValueError, match=r"got list: use torch\.tensor"):
        KeyedGenerator([1, 2])  # type: ignore[arg-type]
