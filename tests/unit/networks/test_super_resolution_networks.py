"""EDSR, RCAN, RDN, CARN and IMDN: the numbers of independent implementations, the names of published
checkpoints.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restora.networks.base import Network
from restora.networks.carn import CARN
from restora.networks.edsr import EDSR
from restora.networks.han import HAN
from restora.networks.imdn import IMDN
from restora.networks.rcan import RCAN
from restora.networks.rdn import RDN

SIZES = [(13, 17), (24, 9), (7, 30)]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("rgb_range", [255.0, 1.0])
def test_rcan_equals_spandrel(scale: int, rgb_range: float) -> None:
    spandrel = pytest.importorskip("spandrel.architectures.RCAN")
    arguments = {"scale": scale, "channels": 16, "groups": 2, "blocks": 3, "reduction": 4}
    torch.manual_seed(scale)
    network = RCAN(**arguments, rgb_range=rgb_range).eval()
    theirs = spandrel.RCAN(
        scale=scale, n_feats=16, n_resgroups=2, n_resblocks=3, reduction=4, rgb_range=int(rgb_range)
    ).eval()
    theirs.load_state_dict(network.state_dict())
    for size in SIZES:
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(network(x), theirs(x.clone()), atol=1e-4, rtol=0)


def test_rcan_of_the_papers_size_is_found_by_spandrel() -> None:
    """Its detection reads the names: what it finds are the arguments that ours was built with."""
    spandrel = pytest.importorskip("spandrel.architectures.RCAN")
    network = RCAN(scale=4, channels=32, groups=2, blocks=2)
    found = spandrel.RCANArch().load(network.state_dict())
    assert (found.scale, found.input_channels) == (4, 3)
    assert found.tags == ["32nf", "2nrg", "2nrb"]


def test_han_weighs_layers_channels_and_pixels() -> None:
    """Both attentions written out, entry by entry, between RCAN's head and tail."""
    torch.manual_seed(0)
    network = HAN(scale=2, channels=4, groups=2, blocks=1, reduction=2, rgb_range=1.0).double().eval()
    torch.nn.init.constant_(network.la.gamma, 0.7)
    torch.nn.init.constant_(network.csa.gamma, -1.3)
    x, state = torch.rand(1, 3, 5, 6, dtype=torch.float64), network.state_dict()
    assert state["csa.conv.weight"].shape == (1, 1, 3, 3, 3)
    with torch.no_grad():
        shallow = network.head(network.sub_mean(x))
        first = network.body[0](shallow)
        second = network.body[1](first)
        layers = [network.body[2](second), second, first]
        weighed = []
        for layer in layers:
            energies = torch.stack([(layer * other).sum() for other in layers])
            shares = torch.exp(energies.max() - energies)
            mixed = sum(share * other for share, other in zip(shares / shares.sum(), layers, strict=True))
            weighed.append(0.7 * mixed + layer)
        weight = F.conv3d(layers[0][:, None], state["csa.conv.weight"], state["csa.conv.bias"], padding=1)
        attended = layers[0] * (1 - 1.3 * torch.sigmoid(weight[:, 0]))
        deep = network.last(torch.cat([attended, network.last_conv(torch.cat(weighed, dim=1))], dim=1))
        torch.testing.assert_close(network(x), network.add_mean(network.tail(deep + shallow)))


def test_han_begins_with_rcans_weights_under_the_authors_names() -> None:
    han = HAN(scale=2, channels=8, groups=2, blocks=1, reduction=2)
    rcan = RCAN(scale=2, channels=8, groups=2, blocks=1, reduction=2)
    own = {"csa.gamma", "csa.conv.weight", "csa.conv.bias", "la.gamma"}
    own |= {f"{name}.{kind}" for name in ("last_conv", "last") for kind in ("weight", "bias")}
    assert han.state_dict().keys() - rcan.state_dict().keys() == own
    assert han.load_state_dict(rcan.state_dict(), strict=False).unexpected_keys == []
    assert RCAN.infer_arguments(han.state_dict()) is None
    assert HAN.infer_arguments(rcan.state_dict()) is None


ARGUMENTS: list[tuple[type[Network], dict[str, Any]]] = [
    (EDSR, {"scale": 3, "in_channels": 3, "channels": 8, "blocks": 3}),
    (EDSR, {"scale": 1, "in_channels": 1, "channels": 8, "blocks": 2}),
    (EDSR, {"scale": 2, "in_channels": 3, "channels": 256, "blocks": 1, "residual_scale": 0.1}),
    (EDSR, {"scale": 4, "in_channels": 3, "channels": 8, "blocks": 2, "upsampler": "pixelshuffledirect"}),
    (EDSR, {"scale": 3, "in_channels": 1, "channels": 8, "blocks": 1, "upsampler": "pixelshuffledirect"}),
    (RCAN, {"scale": 4, "in_channels": 3, "channels": 8, "groups": 2, "blocks": 3, "reduction": 2}),
    (HAN, {"scale": 2, "in_channels": 3, "channels": 8, "groups": 3, "blocks": 1, "reduction": 4}),
    (RDN, {"scale": 4, "in_channels": 3, "channels": 8, "growth": 4, "blocks": 3, "layers": 2}),
    (RDN, {"scale": 3, "in_channels": 3, "channels": 8, "growth": 8, "blocks": 2, "layers": 3}),
    (CARN, {"scale": 4, "in_channels": 3, "channels": 8, "groups": None}),
    (CARN, {"scale": 3, "in_channels": 3, "channels": 8, "groups": 4}),
    (IMDN, {"scale": 3, "in_channels": 3, "channels": 16, "blocks": 2}),
]


@pytest.mark.parametrize(("cls", "arguments"), ARGUMENTS)
def test_arguments_are_read_off_a_state_dict(cls: type[Network], arguments: dict[str, Any]) -> None:
    assert cls.infer_arguments(cls(**arguments).state_dict()) == arguments
    assert cls.infer_arguments({"model.0.weight": torch.ones(4, 1, 3, 3)}) is None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_without_steps_makes_the_large_photo_of_one_convolution(scale: int) -> None:
    """Pixel (s i + k, s j + l) of a colour is channel (colour, k, l) of the small photo's pixel (i, j)."""
    torch.manual_seed(scale)
    network = EDSR(scale=scale, channels=8, blocks=1, upsampler="pixelshuffledirect", rgb_range=1.0).eval()
    x = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        shallow = network.head(network.sub_mean(x))
        last = network.tail[0]
        wide = F.conv2d(network.body(shallow) + shallow, last.weight, last.bias, padding=1)
        large = wide.reshape(1, 3, scale, scale, 5, 6).permute(0, 1, 4, 2, 5, 3)
        expected = network.add_mean(large.reshape(1, 3, 5 * scale, 6 * scale))
        torch.testing.assert_close(network(x), expected)


def test_edsr_names_the_upsamplers_it_has() -> None:
    with pytest.raises(ValueError, match="pixelshuffledirect"):
        EDSR(channels=8, blocks=1, upsampler="nearest")  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [EDSR, RCAN, HAN])
def test_a_photo_of_the_mean_colour_leaves_the_body_at_rest(cls: type[Network]) -> None:
    """With biases at zero nothing but the mean colour comes out, whatever the weights."""
    network = cls(scale=2, channels=8, blocks=2).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    colour = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    with torch.no_grad():
        restored = network(colour.expand(1, 3, 6, 8))
    torch.testing.assert_close(restored, colour.expand(1, 3, 12, 16), atol=1e-5, rtol=0)


def test_the_mean_colour_is_saved_and_loaded_but_not_trained() -> None:
    network = EDSR(channels=8, blocks=1)
    assert {"sub_mean.weight", "sub_mean.bias", "add_mean.weight", "add_mean.bias"} <= set(
        network.state_dict()
    )
    assert not any("mean" in name for name, _ in network.named_parameters())


def test_rdn_takes_the_other_published_names() -> None:
    network = RDN(scale=4, channels=8, growth=4, blocks=2, layers=3, rgb_range=1.0)
    renamed = {}
    for name, value in network.state_dict().items():
        for ours, theirs in (
            ("SFENet", "sfe"),
            ("RDBs", "rdbs"),
            ("convs", "layers"),
            ("conv.0", "conv"),
            ("LFF", "lff"),
            ("GFF", "gff"),
            ("UPNet.4", "output"),
            ("UPNet", "upscale"),
        ):
            name = name.replace(ours, theirs)
        renamed[name] = value
    assert "rdbs.1.layers.2.conv.weight" in renamed
    inferred = RDN.infer_arguments(renamed)
    assert inferred is not None
    assert inferred["rgb_range"] == 1.0
    other = RDN(**inferred)
    other.load_state_dict(other.adapt_weights(renamed))
    x = torch.rand(1, 3, 8, 5)
    assert torch.equal(other(x), network(x))


@pytest.mark.parametrize(("groups", "biases", "published"), [(None, True, 1_592), (4, False, 412)])
def test_carn_has_the_papers_size(groups: int | None, biases: bool, published: int) -> None:
    """Three upsamplers on one trunk. The paper's 1,592K has the biases in it, CARN-M's 412K has not."""
    total = 0
    for scale in (2, 3, 4):
        for name, parameter in CARN(scale=scale, groups=groups).named_parameters():
            counted = scale == 4 or name.startswith("upsample")
            total += parameter.numel() if counted and (biases or parameter.ndim == 4) else 0
    assert round(total / 1000) == published


@pytest.mark.parametrize("groups", [None, 4])
def test_carn_has_the_authors_names(groups: int | None) -> None:
    """The names of the authors' code; CARN-M has one block where CARN has three, and a third
    convolution in it.
    """
    state = CARN(scale=4, channels=8, groups=groups).state_dict()
    layers = [
        "entry",
        "exit",
        "sub_mean.shifter",
        "add_mean.shifter",
        "upsample.up.body.0",
        "upsample.up.body.3",
    ]
    layers += [f"c{i}.body.0" for i in (1, 2, 3)]
    for block in ("b1", "b2", "b3"):
        layers += [f"{block}.c{i}.body.0" for i in (1, 2, 3)]
        inner, positions = (("b1",), (0, 2, 4)) if groups else (("b1", "b2", "b3"), (0, 2))
        layers += [f"{block}.{name}.body.{position}" for name in inner for position in positions]
    assert set(state) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def reference_imdn(state: dict[str, Tensor], x: Tensor, blocks: int, scale: int) -> Tensor:
    """IMDN by the equations of its paper, on a state dict under the authors' names."""

    def conv(name: str, t: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(t, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(name: str, t: Tensor) -> Tensor:
        kept, rest = [], t
        quarter = t.shape[1] // 4
        for step in ("c1", "c2", "c3"):
            out = F.leaky_relu(conv(f"{name}.{step}", rest), 0.05)
            kept.append(out[:, :quarter])
            rest = out[:, quarter:]
        gathered = torch.cat([*kept, conv(f"{name}.c4", rest)], 1)
        flat = gathered.flatten(2)
        contrast = ((flat - flat.mean(2, keepdim=True)) ** 2).mean(2).sqrt() + flat.mean(2)
        gate = conv(f"{name}.cca.conv_du.2", conv(f"{name}.cca.conv_du.0", contrast[:, :, None, None]).relu())
        return conv(f"{name}.c5", gathered * gate.sigmoid()) + t

    shallow = conv("fea_conv", x)
    outputs = [shallow]
    for i in range(1, blocks + 1):
        outputs.append(block(f"IMDB{i}", outputs[-1]))
    fused = F.leaky_relu(conv("c.0", torch.cat(outputs[1:], 1)), 0.05)
    return F.pixel_shuffle(conv("upsampler.0", conv("LR_conv", fused) + shallow), scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imdn_follows_the_papers_equations(scale: int) -> None:
    network = IMDN(scale=scale, channels=32, blocks=6).eval()
    for size in SIZES:
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            expected = reference_imdn(network.state_dict(), x, 6, scale)
            torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=0)


def test_a_constant_channel_does_not_break_the_contrasts_gradient() -> None:
    network = IMDN(scale=2, channels=8, blocks=1)
    torch.nn.init.zeros_(network.IMDB1.c1.weight)
    network(torch.rand(1, 3, 6, 6)).mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_imdn_needs_quarters() -> None:
    with pytest.raises(ValueError, match=r"network\.channels of IMDN must be a multiple of 4"):
        IMDN(channels=10)
