"""N2V2's U-Net: what it leaves out of Noise2Void's, and its pooling."""

import torch
import torch.nn.functional as F

from restora.networks.n2v2_unet import N2V2UNet
from restora.networks.unet import UNet


def test_the_finest_features_of_the_encoder_do_not_reach_the_decoder() -> None:
    network = N2V2UNet(channels=[4, 8], norm="none").eval()
    plain = UNet(in_channels=1, out_channels=1, channels=[4, 8], residual=False).eval()
    assert network.decoder[-1][0].weight.shape[1] * 2 == plain.decoder[-1][0].weight.shape[1]
    with torch.no_grad():
        for value in network.encoder[1].parameters():
            value.zero_()  # all that goes below; a skip would go on
        first, second = network(torch.rand(2, 1, 1, 8, 8)[0]), network(torch.rand(1, 1, 8, 8))
    assert torch.equal(first, second)


def test_maxima_are_blurred_before_every_other_one_is_taken() -> None:
    network = N2V2UNet(channels=[4, 8])
    x = torch.rand(2, 3, 8, 10)
    y = network.pool(x)
    assert y.shape == (2, 3, 4, 5)
    maxima = F.max_pool2d(x, 2, stride=1)
    weights = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    assert torch.isclose(y[0, 1, 1, 2], (maxima[0, 1, 1:4, 3:6] * weights).sum())
    assert torch.equal(network.pool(torch.full_like(x, 0.3)), torch.full_like(y, 0.3))
