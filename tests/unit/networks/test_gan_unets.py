"""The generators of pix2pix and of U-Net DCGAN."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.cost import count_parameters
from restora.networks.dcgan_unet import DCGANUNet
from restora.networks.layers.blocks import InstanceNorm2d
from restora.networks.pix2pix_unet import Pix2PixUNet


def test_the_size_of_pix2pix_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Pix2PixUNet()
    assert round(count_parameters(network) / 1e6, 3) == 54.414
    names = set(network.state_dict())
    inner = "model.model" + ".1.model" + ".3.model" * 6
    assert {"model.model.0.weight", "model.model.1.model.2.running_mean", f"{inner}.3.weight"} <= names
    drops = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert len(drops) == 3  # the decoder's three inner levels between the innermost and the narrowing ones


def test_pix2pix_is_the_authors_nest_of_levels() -> None:
    """With in-place activations, as the checkpoints were trained: what a level passes on is LeakyReLU of its
    input.
    """
    torch.manual_seed(1)
    network = Pix2PixUNet(channels=4, downs=3, dropout=0.0).eval()
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
    state = network.state_dict()

    def conv(name: str, x: Tensor, *, up: bool) -> Tensor:
        function = F.conv_transpose2d if up else F.conv2d
        return function(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=2, padding=1)

    def norm(name: str, x: Tensor) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts)

    outer, inner = "model.model.1.model", "model.model.1.model.3.model"
    x = torch.rand(1, 3, 16, 24)
    a = F.leaky_relu(conv("model.model.0", 2 * x - 1, up=False), 0.2)
    b = F.leaky_relu(norm(f"{outer}.2", conv(f"{outer}.1", a, up=False)), 0.2)
    c = conv(f"{inner}.1", b, up=False).relu()
    b = torch.cat((b, norm(f"{inner}.4", conv(f"{inner}.3", c, up=True))), 1).relu()
    a = torch.cat((a, norm(f"{outer}.6", conv(f"{outer}.5", b, up=True))), 1).relu()
    expected = (torch.tanh(conv("model.model.3", a, up=True)) + 1) / 2
    torch.testing.assert_close(network(x), expected, atol=1e-6, rtol=1e-4)


def test_dropout_is_noise_in_training_only() -> None:
    network = Pix2PixUNet(channels=2, downs=6)
    x = torch.rand(2, 3, 64, 64)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_any_size_and_colour(norm: str) -> None:
    network = Pix2PixUNet(in_channels=1, out_channels=3, channels=4, downs=3, norm=norm).eval()  # type: ignore[arg-type]
    y = network(torch.rand(1, 1, 19, 33))
    assert y.shape == (1, 3, 19, 33)
    assert y.min() > 0
    assert y.max() < 1


def test_dcgan_follows_the_papers_rules() -> None:
    network = DCGANUNet()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(m.kernel_size == (4, 4) and m.stride == (2, 2) for m in convolutions)
    assert len([m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]) == len(convolutions) - 2
    weights = torch.cat([m.weight.flatten() for m in convolutions])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    sizes = []
    network.downs[-1].register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-2:]))
    y = network(torch.rand(2, 3, 64, 64))
    assert sizes == [(4, 4)]
    assert y.min() > 0
    assert y.max() < 1


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="network.downs"):
        Pix2PixUNet(downs=1)
    with pytest.raises(ValueError, match="two levels or more"):
        DCGANUNet(channels=(8,))


@pytest.mark.parametrize("batch", [1, 2])
def test_instance_norm_has_one_gradient_in_every_memory_format(batch: int) -> None:
    """torch's own is wrong for a batch of one in channels_last, which is what CycleGAN trains with."""
    x, slope = torch.randn(2, batch, 5, 12, 9)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=layout).requires_grad_()
        y = InstanceNorm2d(5)(given)
        torch.testing.assert_close(y, F.instance_norm(x))
        y.backward(slope.contiguous(memory_format=layout))
        grads.append(given.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=0)
    wanted = x.clone().requires_grad_()
    F.instance_norm(wanted).backward(slope)
    torch.testing.assert_close(grads[0], wanted.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mean", "deviation"), [(0.2, 0.008), (0.5, 0.001), (3.0, 0.01)])
def test_instance_norm_is_exact_where_the_mean_is_far_above_the_deviation(
    mean: float, deviation: float
) -> None:
    """As of smooth photos; torch's group norm in channels_last was wrong by 0.01 to 10 there."""
    torch.manual_seed(0)
    x = mean + deviation * torch.randn(1, 8, 64, 64)
    wanted = F.instance_norm(x.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        y = InstanceNorm2d(8)(x.contiguous(memory_format=layout))
        torch.testing.assert_close(y.double(), wanted, atol=5e-4, rtol=0)
