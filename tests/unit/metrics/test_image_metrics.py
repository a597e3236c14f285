"""The metrics against independent ones (scikit-image, torchmetrics, loops over pixels) on a real photo."""

import math

import numpy as np
import pytest
import torch
from skimage import data as photos
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from restora.metrics.image import ms_ssim, psnr, psnr_b, ssim
from restora.metrics.registry import METRICS, unavailable


@pytest.fixture(scope="module")
def clean() -> Tensor:
    """(2,3,176,197), two crops of one photo."""
    photo = torch.from_numpy(photos.astronaut()).permute(2, 0, 1).float() / 255
    return torch.stack((photo[:, 20:196, 100:297], photo[:, 300:476, 200:397]))


@pytest.fixture(scope="module")
def restored(clean: Tensor) -> Tensor:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return clean + noise * torch.tensor([0.02, 0.1]).view(2, 1, 1, 1)


def as_hwc(x: Tensor) -> np.ndarray:
    return x.permute(1, 2, 0).double().numpy()


def test_psnr_equals_scikit_image(restored: Tensor, clean: Tensor) -> None:
    expected = [
        peak_signal_noise_ratio(as_hwc(c), as_hwc(r), data_range=1)
        for r, c in zip(restored, clean, strict=True)
    ]
    assert psnr(restored, clean).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_equal_photos_is_infinite(clean: Tensor) -> None:
    assert psnr(clean, clean).isinf().all()


def test_ssim_equals_scikit_image_with_wangs_window(restored: Tensor, clean: Tensor) -> None:
    expected = [
        structural_similarity(
            as_hwc(c), as_hwc(r), channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1,
        )
        for r, c in zip(restored, clean, strict=True)
    ]  # fmt: skip
    assert ssim(restored, clean).tolist() == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_equals_torchmetrics(restored: Tensor, clean: Tensor) -> None:
    """Within what torchmetrics' padded border is worth; it pools colours otherwise, hence one plane."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    ours = ms_ssim(restored[:, :1], clean[:, :1])
    for index in range(2):
        theirs = reference(restored[index : index + 1, :1], clean[index : index + 1, :1], data_range=1.0)
        assert ours[index].item() == pytest.approx(theirs.item(), abs=5e-3)
    assert ours[0] > ours[1]


def blocking_by_loops(x: np.ndarray) -> float:
    """Yim and Bovik's BEF of one plane, pair by pair."""
    border, inside = [], []
    height, width = x.shape
    for row in range(height):
        for column in range(width - 1):
            (border if column % 8 == 7 else inside).append((x[row, column] - x[row, column + 1]) ** 2)
    for row in range(height - 1):
        for column in range(width):
            (border if row % 8 == 7 else inside).append((x[row, column] - x[row + 1, column]) ** 2)
    weight = math.log2(8) / math.log2(min(height, width))
    return weight * max(0.0, float(np.mean(border)) - float(np.mean(inside)))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (45, 67)])
def test_psnr_b_equals_loops_over_pixel_pairs(clean: Tensor, height: int, width: int) -> None:
    plane = clean[:1, :1, :height, :width]
    blocks = torch.nn.functional.avg_pool2d(plane, 8, ceil_mode=True)
    blocky = torch.nn.functional.interpolate(blocks, scale_factor=8)[..., :height, :width]
    error = (blocky - plane).square().mean().item() + blocking_by_loops(blocky[0, 0].double().numpy())
    assert psnr_b(blocky, plane).item() == pytest.approx(-10 * math.log10(error), abs=1e-3)
    assert psnr_b(blocky, plane) < psnr(blocky, plane)


@pytest.mark.parametrize("border", [0, 3, 8, 10])
def test_psnr_b_finds_the_blocks_of_a_photo_whose_border_was_cut_off(clean: Tensor, border: int) -> None:
    plane = clean[:1, :1, :64, :72]
    means = torch.nn.functional.avg_pool2d(plane, 8)
    blocky = torch.nn.functional.interpolate(means, scale_factor=8)[..., border:, border:]
    plane = plane[..., border:, border:]
    steps = [blocky.diff(dim=dim).square() for dim in (-1, -2)]
    columns, rows = (torch.arange(border + 1, border + side) % 8 == 0 for side in (72 - border, 64 - border))
    across = torch.cat([steps[0][..., columns].flatten(), steps[1][..., rows, :].flatten()]).mean().item()
    weight = 3 / math.log2(min(plane.shape[-2:]))  # inside of blocks nothing differs
    error = (blocky - plane).square().mean().item() + weight * across
    assert psnr_b(blocky, plane, border=border).item() == pytest.approx(-10 * math.log10(error), abs=1e-3)


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim, psnr_b])
def test_a_batch_gives_the_numbers_of_its_photos(metric, restored: Tensor, clean: Tensor) -> None:
    apart = torch.cat([metric(r[None], c[None]) for r, c in zip(restored, clean, strict=True)])
    torch.testing.assert_close(metric(restored, clean), apart, rtol=0, atol=1e-4)


def test_half_precision_photos_are_scored_in_float32(restored: Tensor, clean: Tensor) -> None:
    half = restored.bfloat16()
    assert psnr(half, clean).dtype == torch.float32
    torch.testing.assert_close(ssim(half, clean), ssim(half.float(), clean))


def test_mismatched_shapes_are_named(clean: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 176, 196\).*\(2, 3, 176, 197\)"):
        psnr(clean[..., 1:], clean)


@pytest.mark.parametrize(("metric", "side"), [(ssim, 10), (ms_ssim, 175), (psnr_b, 8)])
def test_too_small_photos_are_refused(metric, side: int, clean: Tensor) -> None:
    small = clean[..., :side, :]
    with pytest.raises(ValueError, match="sides"):
        metric(small, small)


@pytest.mark.parametrize("name", [name for name in METRICS if unavailable(name) is None])
def test_every_metric_takes_photos_of_its_smallest_side(name: str, clean: Tensor) -> None:
    metric = METRICS[name]
    small = clean[..., : metric.smallest_side, :]
    assert metric.compute(small, small.flip(-1)).shape == (2,)
