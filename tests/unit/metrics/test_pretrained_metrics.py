"""Metrics that need weights: computed where these are at hand, and a reason where they are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restora.metrics import natural, perceptual
from restora.metrics.registry import METRICS, unavailable
from restora.metrics.weights import VARIABLE


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty folder of weights, which is given."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    perceptual._missing.cache_clear()
    natural._pristine.cache_clear()
    yield tmp_path
    perceptual._missing.cache_clear()
    natural._pristine.cache_clear()


def photo(name: str) -> Tensor:
    return torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["lpips", "dists", "niqe"])
def test_a_missing_file_is_the_reason(name: str, no_weights: Path) -> None:
    reason = unavailable(name)
    assert reason is not None
    known = ("alexnet-owt", "vgg16-", "niqe_pris_params.npz", "torchvision")
    assert any(word in reason for word in known), reason


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="psnr, ssim"):
        unavailable("pnsr")


def test_what_needs_no_weights_is_always_there() -> None:
    assert [name for name in METRICS if unavailable(name) is None][:4] == [
        "psnr",
        "ssim",
        "ms_ssim",
        "psnr_b",
    ]


@pytest.fixture
def pristine(no_weights: Path) -> Path:
    """Parameters fitted to blocks of sharp photos, in the file format of the authors' ones."""
    features = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        plane = natural._luma(photo(name)[0])
        rows, columns = plane.shape[0] // natural.BLOCK, plane.shape[1] // natural.BLOCK
        plane = plane[: rows * natural.BLOCK, : columns * natural.BLOCK]
        scales = [natural._block_features(p, rows, columns) for p in (plane, natural._half(plane))]
        features.append(np.concatenate(scales, axis=1))
    table = np.concatenate(features)
    table = table[np.isfinite(table).all(axis=1)]
    np.savez(
        no_weights / "niqe_pris_params.npz",
        mu_pris_param=table.mean(axis=0, keepdims=True),
        cov_pris_param=np.cov(table, rowvar=False),
    )
    return no_weights


def test_niqe_rises_with_every_distortion(pristine: Path) -> None:
    assert unavailable("niqe") is None
    clean = torch.from_numpy(data.stereo_motorcycle()[0]).permute(2, 0, 1)[None].float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    blurred = torch.nn.functional.avg_pool2d(clean, 5, 1, 2)
    values = [natural.niqe(x, clean).item() for x in (clean, clean + noise, blurred)]
    assert values[0] < min(values[1:]) - 1


def test_niqe_half_size_is_matlabs_imresize(pristine: Path) -> None:
    from restora.image import resize

    plane = torch.rand(1, 1, 40, 52, generator=torch.Generator().manual_seed(0)).double()
    expected = resize(plane.float(), 20, 26)[0, 0].numpy()
    np.testing.assert_allclose(natural._half(plane[0, 0].numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 0.5, 1.5), (1.3, 2.0, 1.0)])
def test_the_fit_finds_the_distribution_it_was_drawn_from(shape: float, left: float, right: float) -> None:
    """Asymmetric generalised Gaussian: |x| is a gamma variate to the power 1/shape, on each side its own
    scale."""
    random = np.random.default_rng(0)
    size = random.gamma(1 / shape, size=400_000) ** (1 / shape)
    sides = random.random(400_000) < left / (left + right)
    values = np.where(sides, -left * size, right * size)
    assert natural._fit(values) == pytest.approx((shape, left, right), rel=0.03)


@pytest.mark.slow
def test_lpips_and_dists_use_the_weights_at_hand(no_weights: Path) -> None:
    """With random weights in torch's cache the figures are those of torchmetrics itself; 0 for equal
    photos."""
    models = pytest.importorskip("torchvision.models")
    cache = no_weights / "cache" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    for make, weights in ((models.alexnet, models.AlexNet_Weights), (models.vgg16, models.VGG16_Weights)):
        torch.manual_seed(0)
        with torch.device("meta"):
            names = make(weights=None).state_dict()
        nothing = torch.zeros(())  # the classifier is not used: expanded, it takes no space in the file
        state = {
            name: torch.randn(value.shape) * 0.02 if "features" in name else nothing.expand(value.shape)
            for name, value in names.items()
        }
        torch.save(state, cache / weights.DEFAULT.url.rpartition("/")[2])
    perceptual._missing.cache_clear()
    perceptual._lpips.cache_clear()
    perceptual._dists.cache_clear()
    assert unavailable("lpips") is unavailable("dists") is None
    clean = photo("chelsea")[..., :96, :128]
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as reference

    assert perceptual.lpips(noisy, clean).item() == pytest.approx(
        reference(noisy, clean, net_type="alex", normalize=True).item(), rel=1e-4
    )
    for metric in (perceptual.lpips, perceptual.dists):
        apart = torch.cat([metric(x, clean) for x in (noisy, clean)])
        together = metric(torch.cat((noisy, clean)), clean.expand(2, -1, -1, -1))
        torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-6)
        assert apart[1].abs() < 1e-4 < apart[0]
        assert metric(noisy[:, :1], clean[:, :1]).shape == (1,)
    perceptual._lpips.cache_clear()
    perceptual._dists.cache_clear()
