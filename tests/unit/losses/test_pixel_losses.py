"""Pixel losses against values computed by hand or by scikit-image, and their gradients."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from restora.losses.pixel import CharbonnierLoss, PSNRLoss, SSIMLoss, WeightedSum

LOSSES = [
    CharbonnierLoss(),
    PSNRLoss(),
    SSIMLoss(),
    WeightedSum(losses=[nn.L1Loss(), SSIMLoss()], weights=[1, 2]),
]


def test_charbonnier_by_hand() -> None:
    clean = torch.zeros(1, 1, 1, 2)
    restored = torch.tensor([[[[0.3, -0.4]]]])
    expected = ((0.3**2 + 0.1**2) ** 0.5 + (0.4**2 + 0.1**2) ** 0.5) / 2
    assert CharbonnierLoss(eps=0.1)(restored, clean).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"loss\.eps must be above 0.*take loss=l1"):
        CharbonnierLoss(eps=0.0)


def test_psnr_is_taken_per_photo_before_the_mean() -> None:
    clean = torch.zeros(2, 3, 4, 4)
    restored = torch.stack((torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)))
    # 20 dB and 40 dB; the mean squared error of both together would give 22.97 dB
    assert PSNRLoss()(restored, clean).item() == pytest.approx(-30, abs=1e-3)
    assert PSNRLoss()(clean, clean).item() == pytest.approx(-80, abs=1e-4)


def test_ssim_is_that_of_scikit_image() -> None:
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(2, 3, 24, 31, generator=generator)
    restored = (clean + 0.2 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    expected = []
    for x, y in zip(restored.flatten(0, 1), clean.flatten(0, 1), strict=True):
        _, full = structural_similarity(
            x.double().numpy(), y.double().numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        expected.append(full[5:-5, 5:-5].mean())
    assert SSIMLoss()(restored, clean).item() == pytest.approx(1 - np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_equality_is_the_least_and_following_the_gradient_leads_there(loss: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    clean = torch.rand(2, 3, 16, 16, generator=generator)
    restored = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).requires_grad_()
    value = loss(restored, clean)
    assert value.ndim == 0
    assert loss(clean, clean) < value
    (gradient,) = torch.autograd.grad(value, restored)
    assert (gradient * (clean - restored)).sum() < 0
    stepped = restored - 1e-3 * gradient / gradient.abs().max()
    assert loss(stepped, clean) < value


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_autocast_changes_nothing(loss: nn.Module) -> None:
    clean, restored = torch.rand(2, 1, 3, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(restored, clean)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(restored, clean))


def test_the_weights_of_a_sum() -> None:
    clean, restored = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    loss = WeightedSum(losses=[nn.L1Loss(), nn.MSELoss()], weights=[2, 4])
    assert loss(restored, clean).item() == pytest.approx(2 * 0.5 + 4 * 0.25)
    with pytest.raises(ValueError, match="2 losses and 1 weights"):
        WeightedSum(losses=[nn.L1Loss(), nn.MSELoss()], weights=[1])


def test_a_photo_smaller_than_the_window_is_named() -> None:
    with pytest.raises(ValueError, match="11x11 or more, got 10x40"):
        SSIMLoss()(torch.rand(1, 3, 10, 40), torch.rand(1, 3, 10, 40))
