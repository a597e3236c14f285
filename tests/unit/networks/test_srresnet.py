"""SRResNet and MSRResNet: sizes at every scale, KAIR's names, and a start at the enlarged photo."""

import pytest
import torch
import torch.nn.functional as F

from restora.networks.srresnet import MSRResNet, SRResNet


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("cls", [MSRResNet, SRResNet])
def test_every_scale_enlarges_every_size(cls: type[MSRResNet], scale: int) -> None:
    network = cls(scale=scale, channels=4, blocks=1).eval()
    for height, width in [(1, 1), (7, 10)]:
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height * scale, width * scale)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_msrresnet_has_the_published_names(scale: int) -> None:
    state = MSRResNet(scale=scale, in_channels=1, channels=8, blocks=2).state_dict()
    upconvs = {1: [], 2: ["upconv1"], 3: ["upconv1"], 4: ["upconv1", "upconv2"]}[scale]
    trunk = [f"recon_trunk.{i}.conv{j}" for i in (0, 1) for j in (1, 2)]
    layers = ["conv_first", *trunk, *upconvs, "HRconv", "conv_last"]
    assert set(state) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    arguments = {"scale": scale, "in_channels": 1, "channels": 8, "blocks": 2}
    assert MSRResNet.infer_arguments(state) == arguments


def test_msrresnet_starts_at_the_enlarged_photo() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 12, 9)
    enlarged = F.interpolate(x, scale_factor=4, mode="bilinear")
    with torch.no_grad():
        assert (MSRResNet(channels=16, blocks=4)(x) - enlarged).abs().max() < 0.02


def test_a_scale_that_pixel_shuffle_cannot_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network\.scale must be 3 or a power of two, got 6"):
        SRResNet(scale=6)
