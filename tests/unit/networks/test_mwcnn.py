"""MWCNN: its wavelet against PyWavelets, the network against a plain transcription of its figure."""

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from restora.networks.cost import count_parameters
from restora.networks.mwcnn import MWCNN, haar, inverse_haar


def bands(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,4C,H/2,W/2), the four sums over 2 x 2 squares written out."""
    a, b, c, d = x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]
    return torch.cat((a + b + c + d, -a - b + c + d, -a + b - c + d, a - b - c + d), 1) / 2


def test_the_wavelet_is_haars() -> None:
    x = torch.randn(2, 8, 6, 3)
    y = haar(x)
    torch.testing.assert_close(y, bands(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    photo = x[0, :, :, 1].double().numpy()
    mean, (horizontal, vertical, diagonal) = pywt.dwt2(photo, "haar")
    # PyWavelets' horizontal detail is the difference of rows; its differences have the other sign
    expected = np.stack((mean, -vertical, -horizontal, diagonal))
    np.testing.assert_allclose(y[0, :, :, 1::3].permute(2, 0, 1), expected, atol=1e-6)


def test_the_wavelet_loses_nothing() -> None:
    x = torch.randn(1, 6, 4, 5)
    torch.testing.assert_close(inverse_haar(haar(x)), x)
    torch.testing.assert_close(haar(x).norm(), x.norm())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_by_the_names_of_its_checkpoint(channels: int) -> None:
    torch.manual_seed(1)
    network = MWCNN(in_channels=channels, channels=(6, 8, 10), blocks=2).eval()
    state = network.state_dict()

    def stage(name: str, x: Tensor) -> Tensor:
        count = len({key.split(".")[1] for key in state if key.startswith(name + ".")})
        for i in range(count):
            weight, bias = (state[f"{name}.{i}.body.0.{kind}"] for kind in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1).relu()
        return x

    def back(x: Tensor) -> Tensor:
        """The adjoint of an orthogonal transform is its inverse."""
        start = torch.zeros(x.shape[0], x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3], requires_grad=True)
        return torch.autograd.grad(bands(start), start, x)[0]

    x = torch.rand(2, channels, 16, 24)
    with torch.no_grad():
        first = stage("d_l1", stage("head", bands(x)))
        second = stage("d_l2", bands(first))
        third = stage("pro_l3", bands(second))
    second = stage("i_l2", back(third) + second)
    first = stage("i_l1", back(second) + first)
    expected = back(F.conv2d(first, state["tail.0.weight"], state["tail.0.bias"], padding=1)) + x
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)


def test_the_size_is_the_published_one() -> None:
    with torch.device("meta"):
        assert round(count_parameters(MWCNN()) / 1e6, 2) == 16.15


def test_of_24_layers_all_but_the_first_and_the_last_may_have_batch_norm() -> None:
    with torch.device("meta"):
        network = MWCNN(batch_norm=True)
    parts = dict(network.named_modules())
    assert len([m for m in parts.values() if isinstance(m, torch.nn.Conv2d)]) == 24
    normed = [name for name, m in parts.items() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(normed) == 22
    assert not any(name.startswith(("head", "tail")) for name in normed)


def test_three_levels_are_asked_for() -> None:
    with pytest.raises(ValueError, match="three network.channels"):
        MWCNN(channels=(16, 16))
