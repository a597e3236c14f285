"""FastDVDnet: the published names and size, two cascaded stages, and what it makes of its frames."""

import pytest
import torch
from safetensors.torch import save_file

from restora.networks.cost import count_parameters
from restora.networks.fastdvdnet import FastDVDnet
from restora.networks.layers.blocks import batch_norm_folded
from restora.networks.recognition import recognise

SMALL = {"in_channels": 15, "channels": [4, 6, 8], "frame_features": 2}


def network(**changes: object) -> FastDVDnet:
    torch.manual_seed(0)
    made = FastDVDnet(**{**SMALL, **changes}).eval()  # type: ignore[arg-type]
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    return made.requires_grad_(False)


def inputs(channels: int = 3, height: int = 16, width: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 5 * channels, height, width, generator=generator), torch.full(
        (2, 1, height, width), 25 / 255
    )


def test_the_authors_names() -> None:
    """A part of each kind; the numbers are those of the layers in each sequence, ReLUs included."""
    state = FastDVDnet().state_dict()
    shapes = {
        "inc.convblock.0.weight": (90, 4, 3, 3),
        "inc.convblock.3.weight": (32, 90, 3, 3),
        "inc.convblock.4.running_var": (32,),
        "downc0.convblock.0.weight": (64, 32, 3, 3),
        "downc0.convblock.3.convblock.3.weight": (64, 64, 3, 3),
        "downc1.convblock.0.weight": (128, 64, 3, 3),
        "upc2.convblock.0.convblock.0.weight": (128, 128, 3, 3),
        "upc2.convblock.1.weight": (256, 128, 3, 3),
        "upc1.convblock.1.weight": (128, 64, 3, 3),
        "outc.convblock.0.weight": (32, 32, 3, 3),
        "outc.convblock.3.weight": (3, 32, 3, 3),
    }
    for block in ("temp1", "temp2"):
        for name, shape in shapes.items():
            assert tuple(state[f"{block}.{name}"].shape) == shape
    assert not any(name.endswith("bias") and state[name[:-4] + "weight"].ndim == 4 for name in state)
    assert count_parameters(FastDVDnet()) == 2_479_096


@pytest.mark.parametrize("arguments", [{}, SMALL, {**SMALL, "in_channels": 5}])
def test_weights_are_recognised_under_the_authors_prefix(arguments: dict, tmp_path) -> None:
    made = FastDVDnet(**arguments)
    save_file(
        {f"module.{name}": value for name, value in made.state_dict().items()}, tmp_path / "model.safetensors"
    )
    found = recognise(tmp_path / "model.safetensors")
    assert found.name == "fastdvdnet"
    assert isinstance(found.network, FastDVDnet)
    assert torch.equal(found.network.temp2.outc.convblock[3].weight, made.temp2.outc.convblock[3].weight)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_cascaded_stages_of_three_frames(channels: int) -> None:
    """By hand: the first block on frames 012, 123, 234, the second on its three results."""
    made = network(in_channels=5 * channels)
    x, level = inputs(channels)
    frames = [x[:, channels * t : channels * (t + 1)] for t in range(5)]

    def block(part: torch.nn.Module, one: list[torch.Tensor]) -> torch.Tensor:
        full = part.inc(torch.cat([one[0], level, one[1], level, one[2], level], 1))
        half = part.downc0(full)
        up = part.upc2(part.downc1(half))
        return one[1] - part.outc(full + part.upc1(half + up))

    stage = [block(made.temp1, frames[first : first + 3]) for first in range(3)]
    torch.testing.assert_close(made(x, level), block(made.temp2, stage), atol=1e-5, rtol=0)


def test_every_frame_counts_and_the_middle_one_is_restored() -> None:
    made = network()
    x, level = inputs()
    whole = made(x, level)
    for frame in range(5):
        changed = x.clone()
        changed[:, 3 * frame : 3 * frame + 3] += 0.1
        assert not torch.equal(made(changed, level), whole)
    for block in (made.temp1, made.temp2):
        torch.nn.init.zeros_(block.outc.convblock[3].weight)
    assert torch.equal(made(x, level), x[:, 6:9]), "without residuals it is the middle frame"


def test_the_first_output_is_nearly_the_noisy_frame() -> None:
    torch.manual_seed(0)
    made = FastDVDnet(channels=(16, 32, 64), frame_features=15)  # in training mode, as at the first step
    x, level = inputs(height=32, width=32)
    with torch.no_grad():
        assert (made(x, level) - x[:, 6:9]).std() < 0.5


def test_folding_batch_norm_changes_nothing() -> None:
    made, (x, level) = network(), inputs(height=17, width=22)
    folded = made.fold_batch_norm()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in made.modules())
    torch.testing.assert_close(folded(x, level), made(x, level), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2}])
def test_a_folded_convolution_keeps_its_kind(options: dict) -> None:
    convolution = torch.nn.Conv2d(4, 6, 3, bias=False, **options)
    norm = torch.nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.rand(1, 4, 11, 12)
    with torch.no_grad():
        torch.testing.assert_close(batch_norm_folded(convolution, norm)(x), norm(convolution(x)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 3}, r"counts those of all 5 frames, got 3: set 15 for frames in colour, 5 for grey"),
        ({"in_channels": 12}, "got 12"),
        ({"channels": [8, 8]}, r"network\.channels are those at full, half and quarter size"),
    ],
)
def test_other_sizes_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        network(**changes)
