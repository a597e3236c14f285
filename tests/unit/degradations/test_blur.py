"""Point-spread functions are the shapes they claim to be, and filtering is convolution."""

import math

import numpy as np
import pytest
import torch
from photos import generator, photo, photos
from scipy import ndimage
from torch import Tensor

from restora.degradations.blur import filtering
from restora.degradations.blur.anisotropic_blur import AnisotropicBlur
from restora.degradations.blur.camera_shake import CameraShake
from restora.degradations.blur.defocus_blur import DefocusBlur
from restora.degradations.blur.filtering import KernelBlur, filter_per_sample
from restora.degradations.blur.gaussian_blur import GaussianBlur
from restora.degradations.blur.mixed_blur import MixedBlur
from restora.degradations.blur.motion_blur import MotionBlur
from restora.degradations.blur.sharpening import unsharp_mask
from restora.degradations.blur.sinc_blur import SincBlur

BLURS: dict[str, KernelBlur] = {
    "motion": MotionBlur(length=(0.5, 23)),
    "defocus": DefocusBlur(radius=(0.1, 6)),
    "gaussian": AnisotropicBlur(sigma=(0.3, 4)),
    "generalised": AnisotropicBlur(sigma=(0.3, 4), profile="generalised", beta=(0.5, 4), size=(7, 21)),
    "plateau": AnisotropicBlur(sigma=(0.3, 4), profile="plateau", beta=(1, 2)),
    "sinc": SincBlur(size=(7, 21)),
    "shake": CameraShake(extent=(0, 24)),
}


def kernels(blur: KernelBlur, batch: int = 1) -> Tensor:
    return blur.kernels(blur.sample((batch, 3, 64, 64), generator(batch)))


def moments(kernel: Tensor) -> tuple[float, float, float, float, float]:
    """Centre (y, x) and variances (yy, xx, xy) of one kernel."""
    offsets = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    k = kernel.double()
    y, x = float(k.sum(1) @ offsets), float(k.sum(0) @ offsets)
    yy, xx = float(k.sum(1) @ offsets.square()), float(k.sum(0) @ offsets.square())
    return y, x, yy - y * y, xx - x * x, float(offsets @ k @ offsets) - x * y


@pytest.mark.parametrize("name", list(BLURS))
def test_kernels_sum_to_one(name: str) -> None:
    drawn = kernels(BLURS[name], 32)
    assert drawn.shape == (32, 2 * BLURS[name].radius + 1, 2 * BLURS[name].radius + 1)
    assert torch.allclose(drawn.sum((1, 2)), torch.ones(32), atol=1e-5)
    assert torch.isfinite(drawn).all()
    if name != "sinc":
        assert drawn.min() >= 0
    assert not torch.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize("side", [5, 21, 31])
def test_filtering_is_convolution_with_mirrored_borders(side: int) -> None:
    x, k = photos(2), torch.rand(2, side, side, generator=torch.Generator().manual_seed(1))
    k = k / k.sum((1, 2), keepdim=True)
    ours = filter_per_sample(x, k)
    for b in range(2):
        for c in range(3):
            expected = ndimage.convolve(x[b, c].double().numpy(), k[b].double().numpy(), mode="mirror")
            assert np.abs(ours[b, c].numpy() - expected).max() < 2e-6


def test_spectrum_and_direct_filtering_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, k = photos(2, 45, 51), kernels(BLURS["motion"], 2)
    direct = filter_per_sample(x, k)
    monkeypatch.setattr(filtering, "_DIRECT_UP_TO", 1)
    assert torch.allclose(filter_per_sample(x, k), direct, atol=2e-6)
    # a lone grey photo is filtered as in company
    grey, kernel = x[:1, :1], k[:1]
    for largest in (1, 99):
        monkeypatch.setattr(filtering, "_DIRECT_UP_TO", largest)
        assert torch.equal(filter_per_sample(grey, kernel), filter_per_sample(x[:1], kernel)[:, :1])


def test_a_photo_smaller_than_the_kernel_is_still_blurred() -> None:
    x = photo(height=8, width=9)
    out = filter_per_sample(x, kernels(BLURS["shake"]))
    assert out.shape == x.shape
    assert x.min() - 1e-5 <= out.min() <= out.max() <= x.max() + 1e-5


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.7, 3.0])
def test_gaussian_blur_equals_scipy(sigma: float) -> None:
    x = photo()
    ours = GaussianBlur(sigma=sigma)(x, generator(1)).image
    expected = x.clone()
    if sigma:
        expected = torch.from_numpy(
            ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="mirror")
        )
    assert (ours - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("length", "angle"), [(9.0, 0.0), (9.0, 90.0), (7.3, 45.0), (15.0, 20.0), (12.4, 131.0)]
)
def test_motion_is_the_segment(length: float, angle: float) -> None:
    """Against a segment of 200,000 points, counted per pixel."""
    kernel = kernels(MotionBlur(length=length, angle=angle))[0]
    along = (np.arange(200_000) + 0.5) / 200_000 * length - length / 2
    x, y = along * math.cos(math.radians(angle)), -along * math.sin(math.radians(angle))
    expected = np.zeros(kernel.shape)
    r = kernel.shape[0] // 2
    np.add.at(expected, (np.rint(y).astype(int) + r, np.rint(x).astype(int) + r), 1 / 200_000)
    assert np.abs(kernel.numpy() - expected).max() < 1e-4


def test_motion_of_nine_pixels_is_nine_equal_taps() -> None:
    kernel = kernels(MotionBlur(length=9, angle=0))[0]
    assert torch.allclose(kernel[4], torch.full((9,), 1 / 9), atol=1e-5)


@pytest.mark.parametrize("radius", [0.2, 1.0, 2.5, 5.9])
def test_defocus_is_a_disc(radius: float) -> None:
    kernel = kernels(DefocusBlur(radius=radius))[0]
    fine = (np.arange(kernel.shape[0] * 64) + 0.5) / 64 - kernel.shape[0] / 2
    inside = (fine[:, None] ** 2 + fine**2 <= radius**2).reshape(kernel.shape[0], 64, kernel.shape[0], 64)
    expected = inside.mean((1, 3)) / inside.mean((1, 3)).sum()
    assert np.abs(kernel.numpy() - expected).max() < (0.003 if radius >= 1 else 1e-6)


def test_anisotropic_gaussian_has_its_axes_and_angle() -> None:
    blur = AnisotropicBlur(sigma=2.0, angle=30, size=31)
    params = dict(blur.sample((1, 3, 64, 64), generator(1)))
    params["sigma"] = torch.tensor([[3.0, 1.2]])
    y, x, yy, xx, xy = moments(blur.kernels(params)[0])
    assert (y, x) == pytest.approx((0, 0), abs=1e-6)
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    assert xx == pytest.approx(9 * c * c + 1.44 * s * s, rel=0.01)
    assert yy == pytest.approx(9 * s * s + 1.44 * c * c, rel=0.01)
    assert xy == pytest.approx(-(9 - 1.44) * c * s, rel=0.01)  # counter-clockwise with rows pointing down


def test_generalised_and_plateau_profiles() -> None:
    r = torch.arange(-10, 11, dtype=torch.float64)
    for profile, beta, of in (
        ("generalised", 3.0, lambda q: torch.exp(-(q**3) / 2)),
        ("plateau", 1.5, lambda q: 1 / (1 + q**1.5)),
    ):
        blur = AnisotropicBlur(sigma=2.5, profile=profile, beta=beta, isotropic=True, size=21)  # type: ignore[arg-type]
        row = kernels(blur)[0, 10].double()
        expected = of((r / 2.5) ** 2)
        assert torch.allclose(row / row[10], expected / expected[10], atol=1e-5)


def test_beta_is_drawn_on_both_sides_of_one() -> None:
    blur = AnisotropicBlur(sigma=1.0, profile="generalised", beta=(0.5, 4))
    beta = blur.sample((400, 3, 8, 8), generator(400))["beta"]
    assert (beta < 1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert beta.min() >= 0.5
    assert beta.max() <= 4


def test_sinc_passes_below_its_cutoff_and_stops_above() -> None:
    kernel = kernels(SincBlur(cutoff=math.pi / 2, size=61))[0]
    response = torch.fft.rfft2(kernel, s=(256, 256)).abs()
    frequency = 2 * math.pi * torch.arange(129) / 256
    along = response[0]
    assert along[frequency < 1.2].min() > 0.85
    assert along[frequency > 1.95].max() < 0.15
    step = torch.zeros(1, 1, 64, 64)
    step[..., 32:] = 1
    ringing = filter_per_sample(step, kernels(SincBlur(cutoff=1.3, size=21)))
    assert ringing.max() > 1.03
    assert ringing.min() < -0.03


def test_shake_paths_have_their_extent_and_differ_from_straight() -> None:
    drawn = kernels(CameraShake(extent=16.0), 24)
    bent = 0
    for kernel in drawn:
        support = (kernel > 0).nonzero()
        longer = (support.amax(0) - support.amin(0)).max() + 1
        assert 16 <= longer <= 19  # the extent, and the pixels around its ends
        _, _, yy, xx, xy = moments(kernel)
        bent += min(np.linalg.eigvalsh([[yy, xy], [xy, xx]])) > 1.0
    assert bent > 12


def test_mixed_blur_convolves_once_with_the_chosen_kernel() -> None:
    stages = {"motion": BLURS["motion"], "defocus": BLURS["defocus"]}
    mixed = MixedBlur(stages=stages, weights={"motion": 1, "defocus": 3})
    params = mixed.sample((64, 3, 48, 60), generator(64))
    drawn = mixed.kernels(params)
    for index, (name, stage) in enumerate(stages.items()):
        rows = params["choice"] == index
        own = stage.kernels(params["stages"][name])[rows]
        margin = mixed.radius - stage.radius
        inner = drawn[rows][:, margin : drawn.shape[1] - margin, margin : drawn.shape[1] - margin]
        assert torch.equal(inner, own)
    assert (params["choice"] == 1).float().mean() == pytest.approx(0.75, abs=0.17)
    with pytest.raises(ValueError, match="KernelBlur"):
        MixedBlur(stages={"plain": GaussianBlur(sigma=1)})  # type: ignore[dict-item]


def test_unsharp_mask_equals_its_definition() -> None:
    x = photo(height=70, width=60)
    sigma = 0.3 * ((51 - 1) * 0.5 - 1) + 0.8  # OpenCV's for 51 taps

    def blurred(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, (0, 0, sigma, sigma), mode="mirror", truncate=25 / sigma)

    double = x.double().numpy()
    residual = double - blurred(double)
    soft = blurred((np.abs(residual) * 255 > 10).astype(float))
    expected = soft * np.clip(double + 0.5 * residual, 0, 1) + (1 - soft) * double
    assert np.abs(unsharp_mask(x).numpy() - expected).max() < 1e-4
    assert unsharp_mask(photo(height=7, width=1)).shape == (1, 3, 7, 1)


def response(kernel: Tensor) -> Tensor:
    """The transfer function along x of a symmetric kernel, at frequencies 0 to pi."""
    offsets = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    frequency = torch.linspace(0, math.pi, 65, dtype=torch.float64)
    return torch.cos(frequency[:, None] * offsets) @ kernel.double().sum(0)


def test_profiles_show_in_the_spectrum() -> None:
    """A Gaussian's spectrum is a Gaussian, flat tops ring through zero, heavy tails pass fine detail."""

    def of(profile: str, beta: float) -> Tensor:
        blur = AnisotropicBlur(sigma=2.0, profile=profile, beta=beta, isotropic=True, size=31)  # type: ignore[arg-type]
        return response(kernels(blur)[0])

    gaussian, flat, heavy = of("gaussian", 1), of("generalised", 4), of("generalised", 0.5)
    frequency = torch.linspace(0, math.pi, 65, dtype=torch.float64)
    assert torch.allclose(gaussian, torch.exp(-2 * frequency.square()), atol=2e-3)
    assert flat.min() < -0.04
    assert gaussian.min() > -1e-3
    fine = frequency > 1.6
    assert heavy[fine].mean() > 3 * gaussian[fine].mean()
    plateau = of("plateau", 2)
    assert plateau.argmin() > 0
    assert plateau[0] == pytest.approx(1)
    assert plateau.min() < gaussian.min()


def test_motion_spectrum_is_a_sinc() -> None:
    """Nine pixels of motion: the transfer function is that of a box, zero where whole waves fit in."""
    along = response(kernels(MotionBlur(length=9, angle=0))[0])
    frequency = torch.linspace(0, math.pi, 65, dtype=torch.float64)[1:]
    box = torch.sin(4.5 * frequency) / (9 * torch.sin(frequency / 2))
    assert torch.allclose(along[1:], box, atol=1e-4)
    across = response(kernels(MotionBlur(length=9, angle=90))[0])
    assert torch.allclose(across, torch.ones(65, dtype=torch.float64), atol=1e-5)


def test_shake_blurs_without_moving_brightness() -> None:
    flat = torch.full((4, 3, 40, 40), 0.6)
    assert torch.allclose(CameraShake(extent=(8, 24))(flat, generator(4)).image, flat, atol=1e-5)
    still = CameraShake(extent=0.0)(photos(2), generator(2)).image
    assert torch.allclose(still, photos(2), atol=1e-5)
    few, many = (
        kernels(CameraShake(extent=20.0, impulse=i), 64).square().sum((1, 2)).mean() for i in (0.0, 6.0)
    )
    assert many != pytest.approx(few.item(), rel=0.02)  # kicks change how the light is spread
