"""What every option of `network` promises: any size, gradient to every parameter, one answer, export and
reload.

The small twins are run; the networks of the papers' sizes are built on the meta device. A new
network is enrolled by its configuration.
"""

import copy
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restora import registry
from restora.artifact.engines import OnnxEngine
from restora.artifact.onnx_model import any_size_program, write_onnx
from restora.artifact.writing import opened
from restora.config import build as build_node
from restora.config import parts
from restora.families.checkpointing import checkpoint_blocks
from restora.networks.base import Network
from restora.networks.cost import count_parameters
from restora.networks.weights import load_weights

NODES = parts("network")
NAMES = sorted(NODES)
SMALL = [name for name in NAMES if name.endswith("_small")]
FULL = [name for name in NAMES if not name.endswith("_small")]
TASKS = {"denoise", "super_resolution", "deblur", "jpeg", "inpaint", "colourise", "derain", "old_photo"}


def node(name: str) -> dict[str, Any]:
    return dict(NODES[name])


def build(name: str, seed: int = 0, **changes: Any) -> Network:
    torch.manual_seed(seed)
    return build_node(node(name) | changes, "network")


@cache
def lively(name: str) -> Network:
    return moved(build(name))


def moved(network: Network) -> Network:
    """The network in evaluation mode, every parameter moved: zeros at the start would hide what depends
    on them.
    """
    network.eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.std() if parameter.numel() > 1 else torch.tensor(0.0)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.1 * spread + 0.02))
    return network.requires_grad_(False)


def inputs(network: Network, height: int, width: int, batch: int = 2) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(batch, network.in_channels, height, width, generator=generator)
    if not network.condition_channels:
        return x, None
    return x, torch.rand(batch, network.condition_channels, height, width, generator=generator)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    scale = max(float(b.abs().max()), 1.0)
    torch.testing.assert_close(a, b, atol=tolerance * scale, rtol=0)


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_spells_out_a_plain_constructor(name: str) -> None:
    values = node(name)
    cls = registry.find("network", values.pop("_target_"))
    parameters = inspect.signature(cls).parameters
    assert issubclass(cls, Network)
    assert cls.tasks
    assert set(cls.tasks) <= TASKS
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert list(values) == list(parameters), "every argument, in the constructor's order, and no others"


@pytest.mark.parametrize("name", FULL)
def test_a_full_size_network_has_a_small_twin_and_builds_without_memory(name: str) -> None:
    assert node(name)["_target_"] in {node(other)["_target_"] for other in SMALL}
    with torch.device("meta"):
        network = build_node(node(name), "network")
    assert count_parameters(network) > 1000


OF_TILES_TOO = ("blind_drunet_small", "filling_drunet_small")
"""Tiles are given the means of the whole photo, or need them for holes that fill a tile."""


def test_only_networks_of_the_whole_photo_see_its_other_end(small: str) -> None:
    network = copy.deepcopy(lively(small)).double().eval()
    height = max(network.size_multiple, 32)
    x, condition = (None if values is None else values.double() for values in inputs(network, height, 768, 1))
    assert x is not None
    other = x.clone()
    other[..., 752:] = 1 - other[..., 752:]
    seen = bool((network(x, condition) != network(other, condition))[..., :8].any())
    assert seen == (network.whole_photo or small in OF_TILES_TOO)


def test_small_networks_are_small(small: str) -> None:
    assert count_parameters(build(small)) < 800_000


@pytest.mark.parametrize(
    "size", [(1, 1), (5, 9), (23, 17), (32, 40)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_any_size(small: str, size: tuple[int, int]) -> None:
    network = lively(small)
    x, condition = inputs(network, *size)
    y = network(x, condition)
    assert y.shape == (2, network.out_channels, size[0] * network.scale, size[1] * network.scale)
    assert y.isfinite().all()
    assert y.dtype == torch.float32


def test_in_float64_it_is_the_same_and_more_precise(small: str) -> None:
    x, condition = inputs(lively(small), 23, 17)
    precise = copy.deepcopy(lively(small)).double()
    y = precise(x.double(), None if condition is None else condition.double())
    assert y.dtype == torch.float64
    same(y.float(), lively(small)(x, condition), 1e-3)


def test_wrong_channels_are_refused_with_the_fix(small: str) -> None:
    network = lively(small)
    x, condition = inputs(network, 16, 16)
    with pytest.raises(ValueError, match="channels"):
        network(torch.cat((x, x), dim=1), condition)
    if condition is not None:
        with pytest.raises(ValueError, match="needs a condition"):
            network(x)


def test_gradient_reaches_every_parameter(small: str) -> None:
    network = build(small).eval()
    network.load_state_dict(lively(small).state_dict())
    x, condition = inputs(network, 19, 24)
    network(x, condition).square().mean().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    without = [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert trained
    assert not without
    assert all(p.grad.isfinite().all() for p in trained.values())


def test_a_training_step_lowers_the_loss(small: str) -> None:
    """In training mode, at the size of a crop: what the family's recipe starts from."""
    network = build(small).train()
    x, condition = inputs(network, 24, 24)
    clean = torch.nn.functional.interpolate(x, scale_factor=network.scale)[:, :1]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        output = network(x, condition)
        output = output[0] if isinstance(output, tuple | list) else output
        loss = (output - clean).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]


def test_one_seed_gives_one_network_and_one_answer(small: str) -> None:
    first, second = build(small).state_dict(), build(small).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    network = lively(small)
    x, condition = inputs(network, 17, 23)
    together = network(x, condition)
    assert torch.equal(network(x, condition), together)
    for i in range(2):
        alone = network(x[i : i + 1], None if condition is None else condition[i : i + 1])
        same(alone, together[i : i + 1], 1e-5)


def test_bf16_autocast_is_finite_and_close(small: str) -> None:
    network = lively(small)
    x, condition = inputs(network, 24, 24)
    exact = network(x, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(x, condition).float()
    assert rounded.isfinite().all()
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_type_take_and_give_photos_of_it(small: str, dtype: torch.dtype) -> None:
    network = build(small).eval()
    network.load_state_dict(lively(small).state_dict())
    x, condition = inputs(network, 18, 21)
    with torch.no_grad():
        exact = network(x, condition)
        converted = network.to(dtype)(x.to(dtype), None if condition is None else condition.to(dtype))
    assert converted.dtype == dtype
    assert (converted.float() - exact).norm() < 0.1 * exact.norm()


def test_channels_last_gives_the_same(small: str) -> None:
    network = build(small).eval()
    network.load_state_dict(lively(small).state_dict())
    network.to(memory_format=torch.channels_last)
    x, condition = inputs(network, 21, 18)
    with torch.no_grad():
        same(network(x.contiguous(memory_format=torch.channels_last), condition), lively(small)(x, condition))


PLAIN = {
    f"{name}_small"
    for name in (
        *(
            "carn",
            "carn_m",
            "dcgan_unet",
            "dncnn",
            "espcn",
            "noise2noise_unet",
            "fdncnn",
            "ffdnet",
            "fsrcnn",
            "imdn",
            "patch_mlp",
        ),
        *("patch_mlp_one_layer", "rednet", "rednet_plain", "srcnn", "ircnn", "zs_n2n"),
    )
}


def test_recomputed_blocks_have_the_same_gradients(small: str) -> None:
    """Where there are repeated blocks; a plain stack says that it has none."""
    network, recomputed = build(small).eval(), build(small).eval()
    for each in (network, recomputed):
        each.load_state_dict(lively(small).state_dict())
    if small in PLAIN:
        with pytest.raises(ValueError, match="no repeated blocks"):
            checkpoint_blocks(recomputed)
        return
    assert checkpoint_blocks(recomputed) > 0
    x, condition = inputs(network, 17, 24)
    for each in (network, recomputed):
        each(x, condition).square().mean().backward()
    expected = dict(network.named_parameters())
    for name, parameter in recomputed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-6, rtol=1e-4)


EXPORTED: dict[str, dict[str, Any]] = {
    "ffdnet_small": {"depth": 3, "channels": 8},  # a condition; pixels to channels and back
    "fastdvdnet_small": {"channels": [4, 4, 4]},  # frames in channels, grouped convolutions
    "imdn_small": {"blocks": 1},  # channels taken apart, statistics of channels
    "edcnn_small": {"channels": [4, 8]},  # the places of the maxima
    "pix2pix_unet_small": {"downs": 2},  # instance norm, transposed convolutions
    "nafnet_mdta_small": {"encoder_blocks": [0], "decoder_blocks": [0]},  # layer norm, gates, attention
    "swinir_classical_small": {},  # shifted windows and their mask
    "patch_mlp_small": {},  # patches cut out and folded back
    "filling_drunet_small": {"channels": [4, 4, 4, 4]},  # a mask; pooling, interpolation, slices
    "blind_drunet_small": {"channels": [4, 4, 4, 4]},  # the mean over a whole photo
}
"""One small twin for each way of computing, as an export takes seconds. `restora export` compares
what it wrote, for any network."""


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_to_onnx_at_any_size(name: str, tmp_path: Path) -> None:
    network = moved(build(name, **EXPORTED[name]))
    write_onnx(network, tmp_path / "model.onnx")
    exported = OnnxEngine(tmp_path / "model.onnx")
    for batch, height, width in [(1, 33, 26), (2, 19, 48)]:
        x, condition = inputs(network, height, width, batch)
        answer = exported(x, condition)
        same(answer, network(x, condition))


@pytest.mark.parametrize("name", ["ffdnet_small", "nafnet_mdta_small", "swinir_classical_small"])
def test_exports_to_a_program_at_any_size(name: str, tmp_path: Path) -> None:
    """Also at sizes that need no padding, although the traced one does."""
    network = moved(build(name, **EXPORTED[name]))
    torch.export.save(any_size_program(network), tmp_path / "model.pt2")
    program = opened("pt2", tmp_path)
    for batch, height, width in [(1, 33, 26), (1, 19, 64), (1, 64, 96), (1, 32, 32), (2, 33, 26)]:
        x, condition = inputs(network, height, width, batch)
        same(program(x, condition), network(x, condition))


def test_weights_survive_a_round_trip(small: str, tmp_path: Path) -> None:
    """Through a file, under the names of the published checkpoints, as the authors' code would load them."""
    network, path = lively(small), tmp_path / "weights.safetensors"
    save_file(
        {name: value.contiguous().clone() for name, value in network.published_state_dict().items()}, path
    )
    other = build(small, seed=3).eval()
    x, condition = inputs(network, 20, 16)
    assert not torch.equal(other(x, condition), network(x, condition))
    load_weights(other, path)
    assert torch.equal(other(x, condition), network(x, condition))
    assert load_file(path).keys() >= network.state_dict().keys()


def test_no_network_imports_torchs_compiler_when_it_is_built_without_memory() -> None:
    """As a model folder is opened, for which the import would take as long as all else."""
    code = """if True:
        import sys
        from restora.apps.networks import build_on_meta
        from restora.config import parts

        for name, node in parts("network").items():
            if name.endswith("_small"):
                build_on_meta(node)
                assert "torch._dynamo" not in sys.modules, name
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
