"""Photos on another scale, or of another type, give no number but the fix."""

import pytest
import torch

from restora.metrics.color import delta_e
from restora.metrics.image import ms_ssim, psnr, psnr_b, ssim
from restora.metrics.natural import niqe
from restora.metrics.perceptual import lpips

PHOTO = torch.rand(1, 3, 168, 168)


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim, psnr_b, delta_e, niqe])
@pytest.mark.parametrize(
    ("restored", "clean", "message"),
    [
        (PHOTO * 255, PHOTO * 255, "divide 8-bit photos by 255"),
        ((PHOTO * 255).byte(), (PHOTO * 255).byte(), r"use photo\.float\(\)/255"),
        (PHOTO[0], PHOTO[0], r"use photo\[None\]"),
    ],
)
def test_photos_that_are_not_in_0_to_1_are_refused(metric, restored, clean, message) -> None:
    with pytest.raises(ValueError, match=message):
        metric(restored, clean)


def test_the_clean_photos_are_checked_too() -> None:
    for clean, message in ((PHOTO * 255, "divide"), (PHOTO[..., 1:], "of one shape")):
        with pytest.raises(ValueError, match=message):
            delta_e(PHOTO, clean)
        with pytest.raises(ValueError, match=message):
            psnr(PHOTO, clean)


def test_what_the_network_of_lpips_would_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restora.metrics.perceptual._lpips", lambda device: lambda one, other: one.mean())
    lpips(PHOTO, PHOTO)
    with pytest.raises(ValueError, match="divide 8-bit photos by 255"):
        lpips(PHOTO * 255, PHOTO * 255)
