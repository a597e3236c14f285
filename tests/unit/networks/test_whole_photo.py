"""Colours balanced and features scaled by what a whole photo shows, and the DRUNet with both."""

import pytest
import torch

from restora.networks.blind_drunet import BlindDRUNet
from restora.networks.drunet import DRUNet
from restora.networks.filling_drunet import FillingDRUNet
from restora.networks.layers.whole_photo import CELL, ColourBalance, FeatureScales

WIDTHS = (8, 12, 16, 24)


@pytest.fixture
def balance() -> ColourBalance:
    torch.manual_seed(0)
    balance = ColourBalance(features=8)
    torch.nn.init.normal_(balance.of_photo[-1].weight, std=0.3)
    return balance.requires_grad_(False)


def test_it_is_the_identity_at_first() -> None:
    x = torch.rand(2, 3, 16, 24)
    assert torch.equal(ColourBalance()(x), x)


def test_each_photo_gets_one_affine_map_of_its_colours(balance: ColourBalance) -> None:
    x = torch.rand(2, 3, 16, 24)
    answer = balance(x)
    for photo, changed in zip(x, answer, strict=True):
        colours = torch.cat((photo.flatten(1), torch.ones(1, 16 * 24))).T  # (pixels,4)
        fitted = torch.linalg.lstsq(colours, changed.flatten(1).T).solution
        torch.testing.assert_close(colours @ fitted, changed.flatten(1).T)
    assert not torch.allclose(answer - x, (answer - x).mean((2, 3), keepdim=True), atol=0.01)


def test_the_order_of_the_cells_and_the_size_of_the_photo_do_not_matter(balance: ColourBalance) -> None:
    cells = torch.rand(6, 3, CELL, CELL)
    one = torch.cat(tuple(cells), 2)[None]  # six cells side by side
    turned = torch.cat(tuple(cells.flip(0)), 1)[None]  # on top of each other, the last first
    torch.testing.assert_close(balance(one)[..., :CELL], balance(turned)[..., -CELL:, :])
    torch.testing.assert_close(balance(one), balance(one.tile(1, 1, 2, 2))[..., :CELL, : 6 * CELL])


def test_mixed_precision_does_not_round_the_photo() -> None:
    x = torch.rand(1, 3, 16, 16)
    balance = ColourBalance(features=8)
    balance.of_photo[-1].bias.data[3] = 0.001
    with torch.autocast("cpu", torch.bfloat16):
        answer = balance(x)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer[:, 0] - x[:, 0], torch.full((1, 16, 16), 0.001), atol=1e-5, rtol=0)


def test_scales_depend_on_the_kind_of_features_and_not_on_contrast_or_places() -> None:
    torch.manual_seed(0)
    scales = FeatureScales(seen=6, scaled=(3, 5), features=8).requires_grad_(False)
    x = torch.rand(2, 6, 16, 24) * torch.rand(2, 6, 1, 1)
    assert all(torch.equal(factor, torch.ones_like(factor)) for factor in scales(x))
    torch.nn.init.normal_(scales.of_photo[-1].weight)
    torch.nn.init.zeros_(scales.of_place[0].bias)
    first, second = scales(x)
    assert first.shape == (2, 3, 1, 1)
    assert second.shape == (2, 5, 1, 1)
    assert not torch.allclose(first[0], first[1], atol=0.1)
    for other in (scales(3 * x), scales(x.flip(2))):
        torch.testing.assert_close(other, [first, second], atol=0.02, rtol=0)


@pytest.mark.parametrize("balance", [False, True])
def test_its_weights_are_recognised_by_their_names(balance: bool) -> None:
    network = BlindDRUNet(channels=WIDTHS, balance=balance)
    found = BlindDRUNet.infer_arguments(network.state_dict())
    assert found == {"in_channels": 3, "channels": [*WIDTHS], "blocks": 1, "balance": balance}
    for other in (DRUNet, FillingDRUNet):
        assert other.infer_arguments(network.state_dict()) is None
        assert BlindDRUNet.infer_arguments(other(channels=WIDTHS).state_dict()) is None


def test_photos_of_one_channel_have_no_colours_to_balance() -> None:
    with pytest.raises(ValueError, match=r"network\.balance=false"):
        BlindDRUNet(in_channels=1, channels=WIDTHS, balance=True)
