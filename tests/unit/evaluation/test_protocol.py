"""Colour spaces and roundings, against the numbers of MATLAB's documentation and against direct
arithmetic."""

import pytest
import torch

from restora.evaluation.protocol import Color, Protocol
from restora.evaluation.scorer import Scorer
from restora.image import luminance, luminance_plane, rgb_to_ycbcr, round_to_8_bits, ycbcr_to_rgb

PRIMARIES = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]).view(5, 3, 1, 1)


def test_ycbcr_of_the_primaries_is_that_of_bt601() -> None:
    expected = [
        [81.481, 90.203, 240],
        [144.553, 53.797, 34.214],
        [40.966, 240, 109.786],
        [235, 128, 128],
        [16, 128, 128],
    ]
    torch.testing.assert_close(
        rgb_to_ycbcr(PRIMARIES)[..., 0, 0] * 255, torch.tensor(expected), rtol=0, atol=2e-3
    )


def test_ycbcr_goes_back() -> None:
    rgb = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, rtol=0, atol=1e-6)


def test_luminance_plane_has_8_bit_values() -> None:
    rgb = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    levels = luminance_plane(rgb) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert (levels - luminance(rgb) * 255).abs().max() <= 0.5 + 1e-4


def test_rounding_leaves_its_input_alone() -> None:
    photo = torch.tensor([0.1, 0.5])
    assert round_to_8_bits(photo).mul(255).tolist() == pytest.approx([26, 128])
    assert photo.tolist() == pytest.approx([0.1, 0.5])


def test_planes_clamp_round_convert_and_crop_in_this_order() -> None:
    photo = torch.full((1, 3, 6, 8), 0.501)
    photo[..., 0, :] = 7.0  # only in the border
    planes = Protocol(color="y", border=1).planes(photo, rounded=True)
    assert planes.shape == (1, 1, 4, 6)
    expected = (128 / 255 * 219 + 16) / 255
    torch.testing.assert_close(planes, torch.full_like(planes, expected), rtol=0, atol=1e-6)
    unrounded = Protocol(color="y", border=1).planes(photo, rounded=False)
    assert unrounded[0, 0, 0, 0].item() == pytest.approx((0.501 * 219 + 16) / 255, abs=1e-6)
    level = Protocol(color="y", y_rounded=True).planes(photo, rounded=True)[0, 0, 3, 3] * 255
    assert level.item() == pytest.approx(126, abs=1e-4)


def test_a_single_channel_is_its_own_luminance() -> None:
    plane = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(Protocol(color="y").planes(plane, rounded=False), plane)


@pytest.mark.parametrize(
    ("settings", "message"), [({"color": "grey"}, "gray, rgb, y"), ({"border": -1}, ">= 0")]
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**({"color": "rgb"} | settings))


def test_a_border_wider_than_the_photo_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing of 6x8: set a border of 2 or less"):
        Protocol(color="rgb", border=3).planes(torch.zeros(1, 3, 6, 8), rounded=False)


@pytest.mark.parametrize(("color", "metrics"), [("y", ("psnr", "ssim")), ("rgb", ("psnr", "delta_e"))])
def test_figures_are_the_same_in_a_trainings_autocast(color: Color, metrics: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 24, 24, generator=generator)
    restored = clean + 0.01 * torch.randn(clean.shape, generator=generator)
    scorer = Scorer(protocol=Protocol(color=color), metrics=metrics)
    rows = scorer.rows(restored, restored, clean)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scorer.rows(restored, restored, clean) == rows
