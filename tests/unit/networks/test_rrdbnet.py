"""RRDBNet against spandrel's, under every naming scheme of its checkpoints."""

import re

import pytest
import torch
from torch import Tensor

from restora.networks.cost import count_macs, count_parameters
from restora.networks.rrdbnet import RRDBNet

VARIANTS = [
    {"scale": 4},
    {"scale": 2},
    {"scale": 1},
    {"scale": 8},
    {"scale": 2, "unshuffle": 2},
    {"scale": 1, "unshuffle": 4},
    {"scale": 4, "in_channels": 1, "out_channels": 1},
]
TINY = {"channels": 8, "blocks": 2, "growth": 4}


def tiny(**arguments: int) -> RRDBNet:
    torch.manual_seed(1)
    return RRDBNet(**(TINY | arguments)).eval()


def first_names(network: RRDBNet) -> dict[str, Tensor]:
    """The names of ESRGAN's first release, by spandrel's own rule."""
    from spandrel.architectures.ESRGAN import _to_old_arch

    return _to_old_arch(dict(network.state_dict()))


def trunk_names(network: RRDBNet) -> dict[str, Tensor]:
    """The names of BSRGAN's release."""
    renamed = {}
    for name, value in network.state_dict().items():
        name = re.sub(r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2", name)
        name = (
            name.replace("conv_body", "trunk_conv").replace("conv_up", "upconv").replace("conv_hr", "HRconv")
        )
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_the_numbers_are_those_of_the_published_code(variant: dict[str, int], size: tuple[int, int]) -> None:
    from spandrel.architectures.ESRGAN import ESRGAN

    unshuffle, scale = variant.get("unshuffle", 1), variant["scale"]
    channels = variant.get("in_channels", 3)
    reference = ESRGAN(
        in_nc=channels * unshuffle**2,
        out_nc=channels,
        num_filters=8,
        num_blocks=2,
        scale=scale * unshuffle,
        shuffle_factor=unshuffle if unshuffle > 1 else None,
    ).eval()
    network = tiny(**variant, growth=32)  # spandrel's growth is fixed
    reference.load_state_dict(first_names(network), strict=True)
    x = torch.rand(2, channels, *size)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("names", [first_names, trunk_names])
def test_older_names_load(variant: dict[str, int], names: object) -> None:
    published = tiny(**variant)
    network = RRDBNet(**(TINY | variant))
    network.load_state_dict(RRDBNet.adapt_weights(names(published)), strict=True)  # type: ignore[operator]
    for name, value in published.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("names", [lambda network: network.state_dict(), first_names, trunk_names])
def test_a_checkpoint_tells_what_it_was_made_with(variant: dict[str, int], names: object) -> None:
    inferred = RRDBNet.infer_arguments(names(tiny(**variant)))  # type: ignore[operator]
    assert inferred is not None
    assert TINY | {"unshuffle": 1, "in_channels": 3, "out_channels": 3} | variant == inferred


def test_another_architecture_is_not_taken_for_it() -> None:
    assert RRDBNet.infer_arguments({"conv_first.weight": torch.zeros(8, 3, 3, 3)}) is None


@pytest.mark.slow
def test_the_size_is_the_published_one() -> None:
    with torch.device("meta"):
        network = RRDBNet()
    assert count_parameters(network) == 16_697_987
    assert count_macs(network, height=64, width=64) == pytest.approx(73.4e9, rel=0.01)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="network.unshuffle"):
        RRDBNet(unshuffle=0)
    with pytest.raises(ValueError, match="network.scale"):
        RRDBNet(scale=5)
