"""A centred stack computes what the stack computes, and loses less of it in 16 bits."""

import copy

import pytest
import torch
from torch import Tensor, nn

from restora.artifact.centred import CentredStack, centre_features
from restora.networks.base import Network
from restora.networks.dncnn import DnCNN, FDnCNN
from restora.networks.ffdnet import FFDNet
from restora.networks.vdsr import VDSR


def stack_of(*convolutions: nn.Conv2d) -> nn.Sequential:
    parts: list[nn.Module] = []
    for convolution in convolutions:
        parts += [convolution, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).requires_grad_(False)


def photo(channels: int) -> Tensor:
    return torch.rand(2, channels, 21, 18, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "convolutions",
    [
        (nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)),
        (nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3, padding=2, dilation=2), nn.Conv2d(6, 1, 1, bias=False)),
        (nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 4, (1, 5), padding=(0, 2)), nn.Conv2d(4, 2, 3)),
    ],
    ids=["plain", "dilated", "shrinking"],
)
def test_equals_the_stack_in_float32_up_to_its_border(convolutions):
    stack = stack_of(*convolutions)
    x = photo(convolutions[0].in_channels)
    centred = CentredStack(convolutions=convolutions, sample=x, dtype=torch.float32)
    torch.testing.assert_close(centred(x), stack(x), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_that_are_constants_with_small_differences_keep_them(dtype):
    """Positive features of about 2 that differ by 0.1, which is what a smooth photo is to a denoiser."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(c, d, 3, padding=1) for c, d in ((1, 8), (8, 8), (8, 8), (8, 1))]
    for layer in convolutions[:-1]:
        nn.init.constant_(layer.bias, 2.0)
        layer.weight.data.mul_(0.3)
    stack, x = stack_of(*convolutions), 0.5 + 0.1 * photo(1)
    with torch.autocast("cpu", dtype):
        plainly = stack(x)
    centred = CentredStack(convolutions=convolutions, sample=x, dtype=dtype)(x)
    exact = stack(x)
    assert centred.dtype == torch.float32
    assert (centred - exact).std() < (plainly - exact).std() / 4


@pytest.mark.parametrize(
    ("network", "replaced"),
    [
        (DnCNN(depth=4, channels=8, batch_norm=False), 1),
        (FDnCNN(in_channels=3, depth=4, channels=8), 1),
        (FFDNet(in_channels=1, depth=4, channels=8), 1),
        (DnCNN(depth=4, channels=8, batch_norm=True), 0),
        (VDSR(depth=4, channels=8), 0),
    ],
    ids=["dncnn", "fdncnn", "ffdnet", "batch_norm", "vdsr"],
)
def test_plain_stacks_are_found_and_the_network_stays_what_it_was(network: Network, replaced: int):
    centred = copy.deepcopy(network.eval()).requires_grad_(False)
    centre_features(centred, torch.bfloat16)
    assert sum(isinstance(module, CentredStack) for module in centred.modules()) == replaced
    x = photo(network.in_channels)
    level = torch.full((2, 1, *x.shape[2:]), 0.1) if network.condition_channels else None
    with torch.no_grad():
        torch.testing.assert_close(centred(x, level), network(x, level), rtol=0, atol=0.02)
