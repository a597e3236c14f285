"""Discriminators: published sizes and names, what a logit sees, and the features for feature matching."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.config import build as build_node
from restora.config import parts
from restora.losses.adversarial import WassersteinLoss
from restora.networks.cost import count_parameters
from restora.networks.discriminators import (
    DCGANDiscriminator,
    Discriminator,
    PatchDiscriminator,
    UNetDiscriminator,
    VGGDiscriminator,
)

NODES = parts("discriminator")
SMALL = [name for name in NODES if name.endswith("_small")]


@pytest.mark.parametrize(
    ("discriminator", "parameters"),
    [
        (VGGDiscriminator, 14_499_401),
        (lambda: PatchDiscriminator(norm="instance"), 2_764_737),
        (UNetDiscriminator, 4_376_897),
        (DCGANDiscriminator, 2_765_568),
    ],
)
def test_the_size_is_the_published_one(discriminator: type[Discriminator], parameters: int) -> None:
    assert count_parameters(discriminator()) == parameters


@pytest.mark.parametrize(
    ("discriminator", "names"),
    [
        (VGGDiscriminator, {"conv0_0.bias", "conv4_1.weight", "bn0_1.running_mean", "linear2.bias"}),
        (PatchDiscriminator, {"model.0.bias", "model.3.running_var", "model.11.weight"}),
        (UNetDiscriminator, {"conv0.bias", "conv9.weight"}),
        (DCGANDiscriminator, {"main.0.weight", "main.3.running_mean", "main.11.weight"}),
    ],
)
def test_the_names_are_the_published_ones(discriminator: type[Discriminator], names: set[str]) -> None:
    with torch.device("meta"):
        assert names <= set(discriminator().state_dict())


@pytest.mark.parametrize(
    ("discriminator", "size", "logits"),
    [
        (VGGDiscriminator(channels=4, hidden=8), (128, 128), (2, 1)),
        (VGGDiscriminator(channels=4, hidden=8), (33, 150), (2, 1)),
        (PatchDiscriminator(channels=4), (256, 256), (2, 1, 30, 30)),
        (PatchDiscriminator(channels=4), (24, 50), (2, 1, 1, 4)),
        (UNetDiscriminator(channels=4), (37, 50), (2, 1, 37, 50)),
        (DCGANDiscriminator(channels=4), (64, 64), (2, 1, 1, 1)),
        (DCGANDiscriminator(channels=4), (64, 96), (2, 1, 1, 3)),
    ],
)
def test_the_shape_of_the_logits(
    discriminator: Discriminator, size: tuple[int, int], logits: tuple[int, ...]
) -> None:
    assert discriminator(torch.rand(2, 3, *size)).shape == logits


def test_a_logit_of_patchgan_sees_70_pixels() -> None:
    x = torch.rand(1, 3, 128, 128, requires_grad=True)
    PatchDiscriminator(channels=4, norm="none")(x)[0, 0, 7, 7].backward()
    rows, columns = (x.grad.abs().sum((0, 1, axis)).nonzero().flatten() for axis in (3, 2))
    for seen in (rows, columns):
        assert seen[-1] - seen[0] + 1 == 70


@pytest.mark.parametrize("name", SMALL)
def test_features_end_with_the_logits_and_teach_every_parameter(name: str) -> None:
    discriminator = build_node(NODES[name], "discriminator")
    x = torch.rand(2, 3, 64, 64)
    discriminator.eval()  # batch statistics and power iterations stand still
    features = discriminator.features(x)
    assert len(features) >= 4
    assert torch.equal(features[-1], discriminator(x))
    discriminator.train()
    discriminator(x).square().sum().backward()
    for name, parameter in discriminator.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert any(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters())


@pytest.mark.parametrize("name", NODES)
@pytest.mark.slow
def test_the_photo_may_be_shown_beside_its_degraded_version(name: str) -> None:
    config = NODES[name]
    with torch.device("meta"):
        discriminator = build_node(config, "discriminator", in_channels=6)
        assert discriminator(torch.rand(2, 6, 128, 128)).shape[0] == 2


@pytest.mark.parametrize("name", SMALL)
def test_too_small_photos_are_named(name: str) -> None:
    discriminator = build_node(NODES[name], "discriminator")
    least = discriminator.minimum_size
    assert discriminator(torch.rand(2, 3, least, least)).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {least}x{least}, got {least}x{least - 1}"):
        discriminator(torch.rand(2, 3, least, least - 1))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_it_learns_to_tell_two_batches_apart(name: str) -> None:
    torch.manual_seed(1)
    discriminator = build_node(NODES[name], "discriminator").train()
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    rough = torch.rand(4, 3, 48, 48)
    smooth = F.avg_pool2d(rough, 7, 1, 3, count_include_pad=False)
    least = float("inf")
    for _ in range(25):
        real, fake = discriminator(rough), discriminator(smooth)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        least = min(least, loss.item())
    assert least < 0.9  # 1.39 is guessing


class Published(nn.Module):
    """Real-ESRGAN's discriminator as its checkpoints know it: the older spectral norm, sizes that halve three
    times.
    """

    def __init__(self, f: int) -> None:
        super().__init__()
        old = torch.nn.utils.spectral_norm
        self.conv0 = nn.Conv2d(3, f, 3, 1, 1)
        for i in (1, 2, 3):
            down = nn.Conv2d(f * 2 ** (i - 1), f * 2**i, 4, 2, 1, bias=False)
            self.add_module(f"conv{i}", old(down))
        for i, (a, b) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1), (1, 1)), 4):
            self.add_module(f"conv{i}", old(nn.Conv2d(f * a, f * b, 3, 1, 1, bias=False)))
        self.conv9 = nn.Conv2d(f, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        def act(i: int, y: Tensor) -> Tensor:
            return F.leaky_relu(getattr(self, f"conv{i}")(y), 0.2)

        def twice(y: Tensor) -> Tensor:
            return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

        x0 = act(0, x)
        x1 = act(1, x0)
        x2 = act(2, x1)
        x3 = act(3, x2)
        y = act(4, twice(x3)) + x2
        y = act(5, twice(y)) + x1
        y = act(6, twice(y)) + x0
        return self.conv9(act(8, act(7, y)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_published_weights_of_the_unet_load_and_give_the_published_logits() -> None:
    published = Published(4)
    published(torch.rand(2, 3, 16, 16))  # a power iteration, so that u and v are not the initial ones
    discriminator = UNetDiscriminator(channels=4)
    discriminator.load_state_dict(published.state_dict(), strict=True)
    x = torch.rand(2, 3, 32, 40)
    torch.testing.assert_close(discriminator.eval()(x), published.eval()(x), atol=1e-5, rtol=1e-4)


def test_a_penalised_critic_has_second_derivatives() -> None:
    for critic in (PatchDiscriminator(channels=4, norm="instance"), UNetDiscriminator(channels=4)):
        real, fake = torch.rand(2, 2, 3, 32, 32)
        WassersteinLoss().penalty(critic, real, fake).backward()
        gradients = [p.grad for n, p in critic.named_parameters() if n.endswith(("weight", "original"))]
        assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_unknown_norms_are_named() -> None:
    with pytest.raises(ValueError, match='"batch", "instance" or "none", got "layer"'):
        PatchDiscriminator(norm="layer")  # type: ignore[arg-type]
