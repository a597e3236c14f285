"""U-Net: the paper's size, what conditions and side outputs do."""

import pytest
import torch
import torch.nn.functional as F

from restora.networks.cost import count_parameters
from restora.networks.unet import UNet

SMALL = {"channels": (4, 6, 8)}


def test_the_size_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        network = UNet(in_channels=1, out_channels=2, residual=True)
    pairs = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    encoder = sum(9 * (a * b + b * b) + 2 * b for a, b in pairs)
    decoder = sum(4 * b * a + a + 9 * (2 * a * a + a * a) + 2 * a for a, b in pairs[1:])
    assert count_parameters(network) == encoder + decoder + 64 * 2 + 2
    assert round(count_parameters(network) / 1e6, 2) == 31.03


@pytest.mark.parametrize("size", [(4, 4), (17, 30)])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_silent_head_leaves_the_input(size: tuple[int, int], norm: str) -> None:
    network = UNet(norm=norm, **SMALL).eval()  # type: ignore[arg-type]
    torch.nn.init.zeros_(network.head.weight)
    x = torch.rand(2, 3, *size)
    assert torch.equal(network(x), x)


def test_grey_photos_become_colour_ones() -> None:
    assert UNet(in_channels=1, out_channels=3, **SMALL)(torch.rand(1, 1, 9, 9)).shape == (1, 3, 9, 9)


def test_the_condition_reaches_the_output_and_its_absence_is_named() -> None:
    network = UNet(condition_channels=1, **SMALL)
    x = torch.rand(1, 3, 13, 8)
    assert not torch.equal(network(x, torch.zeros(1, 1, 13, 8)), network(x, torch.ones(1, 1, 13, 8)))
    for call in (network, network.restore_scales):
        with pytest.raises(ValueError, match="needs a condition of 1 channels"):
            call(x[..., :8, :])


def test_side_outputs_are_photos_of_half_and_quarter_size() -> None:
    network = UNet(side_outputs=2, **SMALL)
    x = torch.rand(2, 3, 16, 24)
    outputs = network.restore_scales(x)
    assert [tuple(y.shape) for y in outputs] == [(2, 3, 16, 24), (2, 3, 8, 12), (2, 3, 4, 6)]
    torch.testing.assert_close(outputs[0], network(x))
    sum(y.square().mean() for y in outputs).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    for head in (network.head, *network.side_heads):
        torch.nn.init.zeros_(head.weight)  # what is left is the input reduced to each size
    for level, y in enumerate(network.restore_scales(x)):
        torch.testing.assert_close(y, F.avg_pool2d(x, 2**level))


def test_side_outputs_refuse_a_size_that_does_not_halve() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4, got 18x16.*patch_size"):
        UNet(side_outputs=1, **SMALL).restore_scales(torch.rand(1, 3, 18, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "layer"}, "network.norm"),
        ({"in_channels": 4, "out_channels": 3}, "network.residual"),
        ({"side_outputs": 3}, "network.side_outputs must be from 0 to 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**SMALL, **arguments)  # type: ignore[arg-type]
