"""The test-time local converter: exact where the window covers the photo, local elsewhere, and the authors'
numbers.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.local_converter import GlobalMean, convert, local_mean
from restora.networks.nafnet import NAFNet


@pytest.fixture
def network() -> NAFNet:
    torch.manual_seed(1)
    network = NAFNet(width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1)).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.5)
    return network


def mean_by_hand(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B,H,W,C): the mean of every valid window, spread to the borders by replication."""
    k = tuple(min(a, b) for a, b in zip(window, x.shape[1:3], strict=True))
    inside = F.avg_pool2d(x.permute(0, 3, 1, 2), k, stride=1)
    top, left = ((n - 1) // 2 for n in k)
    inside = F.pad(inside, (left, k[1] - 1 - left, top, k[0] - 1 - top), mode="replicate")
    return inside.permute(0, 2, 3, 1)


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (4, 7), (5, 40), (40, 2), (9, 12), (99, 99)])
def test_the_local_mean_is_the_mean_of_a_window_kept_inside(window: tuple[int, int]) -> None:
    x = torch.rand(2, 9, 12, 3, dtype=torch.float32)
    torch.testing.assert_close(local_mean(x, window), mean_by_hand(x, window), atol=1e-6, rtol=1e-5)


def test_running_sums_stay_exact_on_a_large_photo() -> None:
    x = torch.rand(1, 2000, 1500, 1) + 10
    y = local_mean(x, (96, 96))
    expected = x[0, 1000 - 48 + 1 : 1000 + 48 + 1, 700 - 48 + 1 : 700 + 48 + 1].double().mean()
    assert abs(y[0, 1000, 700, 0].double() - expected) < 1e-4


def test_nothing_changes_where_the_window_covers_the_photo(network: NAFNet) -> None:
    local = convert(network, train_size=(32, 32))
    with torch.no_grad():
        for size in ((32, 32), (48, 48), (17, 40)):
            x = torch.rand(1, 3, *size)
            assert torch.equal(local(x), network(x))


def test_the_windows_follow_the_levels_of_the_network(network: NAFNet) -> None:
    local = convert(network, train_size=(32, 64))
    windows = {name: m.window for name, m in local.named_modules() if isinstance(m, GlobalMean)}
    assert windows["encoders.0.0.sca.0"] == windows["decoders.1.0.sca.0"] == (48, 96)
    assert windows["encoders.1.0.sca.0"] == (24, 48)
    assert windows["middle_blks.0.sca.0"] == (12, 24)


def test_the_original_is_left_as_it_was_and_the_names_stay(network: NAFNet) -> None:
    local = convert(network, train_size=(16, 16))
    assert all(m.window is None for m in network.modules() if isinstance(m, GlobalMean))
    assert list(local.state_dict()) == list(network.state_dict())
    assert all(
        a.data_ptr() != b.data_ptr() for a, b in zip(local.parameters(), network.parameters(), strict=True)
    )


def test_a_far_away_change_no_longer_matters(network: NAFNet) -> None:
    local = convert(network, train_size=(16, 16))
    x = torch.rand(1, 3, 32, 160)
    changed = x.clone()
    changed[..., 120:] = 0
    with torch.no_grad():
        assert torch.equal(local(changed)[..., :16], local(x)[..., :16])
        assert not torch.equal(network(changed)[..., :16], network(x)[..., :16])


@pytest.mark.parametrize("size", [(20, 90), (33, 47), (7, 128)])
def test_the_numbers_are_those_of_the_definition(network: NAFNet, size: tuple[int, int]) -> None:
    """The network with every mean taken by hand over windows of 1.5 times the 16 x 16 patch."""
    local = convert(network, train_size=(16, 16))

    class MeanByHand(nn.Module):
        def __init__(self, window: tuple[int, int]) -> None:
            super().__init__()
            self.window = window

        def forward(self, x: Tensor) -> Tensor:
            return mean_by_hand(x, self.window)

    for name, side in {
        "encoders.0": 24,
        "encoders.1": 12,
        "middle_blks": 6,
        "decoders.0": 12,
        "decoders.1": 24,
    }.items():
        network.get_submodule(f"{name}.0.sca")[0] = MeanByHand((side, side))  # type: ignore[index]
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(local(x), network(x), atol=1e-5, rtol=1e-4)


def test_a_network_without_global_statistics_is_named() -> None:
    network = NAFNet(width=8, encoder_blocks=(), middle_blocks=0, decoder_blocks=())
    with pytest.raises(ValueError, match="NAFNet gathers nothing"):
        convert(network, train_size=(16, 16))


def test_gradients_pass_through_the_local_mean() -> None:
    x = torch.rand(1, 5, 6, 2, dtype=torch.float64, requires_grad=True)
    local_mean(x, (3, 2)).square().sum().backward()
    mine = x.grad
    y = x.detach().clone().requires_grad_()
    mean_by_hand(y, (3, 2)).square().sum().backward()
    torch.testing.assert_close(mine, y.grad, atol=1e-5, rtol=1e-5)
