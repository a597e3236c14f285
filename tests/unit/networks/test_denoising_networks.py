"""FFDNet, RED-Net and the patch MLP: what sets each apart, against plain formulations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restora.networks.ffdnet import FFDNet
from restora.networks.patch_mlp import PatchMLP
from restora.networks.rednet import REDNet


def level(sigma: float, height: int, width: int) -> torch.Tensor:
    return torch.full((1, 1, height, width), sigma / 255)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (15, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ffdnet_is_a_plain_stack_on_the_mosaic(channels: int, size: tuple[int, int]) -> None:
    """The authors' way: the four pixels of a 2x2 cell as channels, c * 4 + row * 2 + column, and one
    level.
    """
    network = FFDNet(in_channels=channels, depth=4, channels=8).eval()
    x = torch.rand(1, channels, *size)
    below, right = size[0] % 2, size[1] % 2
    padded = F.pad(x, (0, right, 0, below), mode="replicate")
    cells = [padded[:, c, i::2, j::2] for c in range(channels) for i in (0, 1) for j in (0, 1)]
    sigma_map = torch.full_like(cells[0], 25 / 255)
    features = network.model(torch.stack([*cells, sigma_map], dim=1))
    expected = torch.empty_like(padded)
    for c in range(channels):
        for i in (0, 1):
            for j in (0, 1):
                expected[:, c, i::2, j::2] = features[:, 4 * c + 2 * i + j]
    restored = network(x, level(25, *size))
    torch.testing.assert_close(restored, expected[..., : size[0], : size[1]], atol=1e-6, rtol=0)


def test_ffdnet_has_the_published_names_and_reads_its_arguments() -> None:
    for arguments in (
        {"in_channels": 1, "depth": 15, "channels": 64},
        {"in_channels": 3, "depth": 12, "channels": 96},
    ):
        state = FFDNet(**arguments).state_dict()
        expected = {f"model.{2 * i}.{kind}" for i in range(arguments["depth"]) for kind in ("weight", "bias")}
        assert set(state) == expected
        assert FFDNet.infer_arguments(state) == arguments


def test_red30_has_the_papers_weights() -> None:
    """4,131K without biases (the count that MemNet, ICCV 2017, gives for it)."""
    weights = sum(p.numel() for p in REDNet().parameters() if p.ndim == 4)
    assert weights == 4_131_072


@pytest.mark.parametrize(
    ("layers", "joined"), [(5, [2, 4]), (10, [2, 4, 6, 8]), (15, [2, 4, 6, 8, 10, 12, 14])]
)
def test_red_net_joins_every_second_layer_with_its_mirror_image(layers: int, joined: list[int]) -> None:
    network = REDNet(layers=layers, channels=4).eval()
    encoded: dict[int, torch.Tensor] = {}
    decoded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for i, layer in enumerate(network.conv_layers, 1):
        layer.register_forward_hook(lambda _, __, out, i=i: encoded.__setitem__(i, out.clone()))
    for i, layer in enumerate(network.deconv_layers):
        layer.register_forward_hook(
            lambda _, args, out, i=i: decoded.__setitem__(layers - i, (args[0].clone(), out.clone()))
        )
    network(torch.rand(1, 1, 12, 10))
    # what enters the decoder layer at depth d is the output of the one before, joined with encoder layer d
    for depth in range(1, layers):
        entering, before = decoded[depth][0], decoded[depth + 1][1]
        expected = F.relu(before + encoded[depth]) if depth in joined else before
        torch.testing.assert_close(entering, expected)


def test_red_net_without_skips_sees_the_photo_only_through_the_bottleneck() -> None:
    with_skips, without = (REDNet(layers=3, channels=4, skips=skips).eval() for skips in (True, False))
    for network in (with_skips, without):
        torch.nn.init.zeros_(network.deconv_layers[-1].weight)
        torch.nn.init.zeros_(network.deconv_layers[-1].bias)
    x = torch.rand(1, 1, 7, 9)
    assert torch.equal(with_skips(x), x)
    assert torch.equal(without(x), torch.zeros_like(x))


def reference_patch_mlp(network: PatchMLP, x: torch.Tensor) -> np.ndarray:
    """Patch by patch: cut out, through the layers, weigh by a Gaussian, add, divide by the sum of weights."""
    p, q, s = network.patch, network.output_patch, network.stride
    channels, height, width = x.shape
    margin = (p - q) // 2
    padded = F.pad(x[None], (q + margin,) * 4, mode="replicate")[0]
    axis = torch.arange(q) - (q - 1) / 2
    gauss = torch.exp(-(axis**2) / (2 * (q / 4) ** 2))
    weight = torch.outer(gauss, gauss)
    total, answer = (
        torch.zeros(height + 2 * q, width + 2 * q),
        torch.zeros(channels, height + 2 * q, width + 2 * q),
    )
    # every multiple of the stride whose patch touches the photo, in coordinates shifted by q
    starts = [[start for start in range(-q, n) if start % s == 0 and start + q > 0] for n in (height, width)]
    for top in starts[0]:
        for left in starts[1]:
            row, column = top + q, left + q
            y = (padded[:, row : row + p, column : column + p].flatten() - 0.5) / 0.2
            for i, layer in enumerate(network.layers):
                y = layer(y if i == 0 else y.tanh())
            answer[:, row : row + q, column : column + q] += y.view(channels, q, q) * weight
            total[row : row + q, column : column + q] += weight
    return ((answer / total)[:, q : q + height, q : q + width] * 0.2 + 0.5).numpy()


@pytest.mark.parametrize(
    ("patch", "output_patch", "stride", "hidden", "channels"),
    [(7, 7, 3, (6, 5), 1), (9, 5, 2, (8,), 3), (6, 6, 1, (4,), 1), (5, 5, 5, (6, 6, 6), 1)],
)
def test_patch_mlp_is_a_perceptron_over_patches(
    patch: int, output_patch: int, stride: int, hidden: tuple[int, ...], channels: int
) -> None:
    torch.manual_seed(0)
    network = PatchMLP(
        in_channels=channels, patch=patch, output_patch=output_patch, stride=stride, hidden=hidden
    ).eval()
    for layer in network.layers:
        torch.nn.init.normal_(layer.bias)
    x = torch.rand(channels, 4 * stride, 6 * stride)
    with torch.no_grad():
        expected = reference_patch_mlp(network, x)
        np.testing.assert_allclose(network(x[None])[0].numpy(), expected, atol=2e-5)


def test_patch_mlp_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="equal parity"):
        PatchMLP(patch=8, output_patch=7)
    with pytest.raises(ValueError, match=r"network\.hidden"):
        PatchMLP(hidden=())
