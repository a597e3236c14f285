"""Compiled training is the same training, compiled once for blocks of a kind, and never for a photo."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from ready_batches import ReadyBatches
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func
from torch.utils.data import DataLoader

from restora.config import build, compose, parts
from restora.families.base import Family
from restora.families.compiling import compile_in_place, regions
from restora.networks.dncnn import DnCNN
from restora.networks.nafnet import NAFBlock, NAFNet
from restora.objectives.base import Opponent, Step
from restora.training.build import build_objectives
from restora.training.schedules import Constant
from restora.types import Batch

SIDES = (24, 32, 40)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without its code generation, which takes half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def without_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """A mode is of inductor alone."""
    return lambda made, *, dynamic, mode=None: function(made, dynamic=dynamic)


class ManySizes(ReadyBatches):
    """Validation photos of three sizes."""

    def val_dataloader(self) -> DataLoader:
        photos = []
        for side in SIDES:
            clean = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))
            photos.append({"clean": clean, "degraded": clean / 2, "condition": None, "names": [f"{side}"]})
        return DataLoader(photos, batch_size=None)


def nafnet() -> NAFNet:
    torch.manual_seed(0)
    network = NAFNet(width=8, encoder_blocks=[2], middle_blocks=2, decoder_blocks=[2])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def plain() -> DnCNN:
    torch.manual_seed(0)
    return DnCNN(in_channels=3, depth=3, channels=8, batch_norm=True, bias=True)


def trained(make: Callable[[], Any], tmp_path: Any, **recipe: Any) -> Family:
    options: dict[str, Any] = {"ema_decay": None, "loss": nn.L1Loss(), "schedule": Constant(), **recipe}
    family = Family(network=make(), optimizer=partial(torch.optim.SGD, lr=0.1), **options)
    Trainer(
        accelerator="cpu",
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    ).fit(family, ManySizes())
    return family


def assert_same(one: Family, other: Family) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    assert [row["name"] for row in other.scores] == [str(side) for side in SIDES]
    for a, b in zip(one.scores, other.scores, strict=True):
        assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-3)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "recipe",
    [{}, {"ema_decay": 0.9}, {"activation_checkpointing": True}],
    ids=["weights evaluated", "average evaluated", "recomputed"],
)
@pytest.mark.slow
def test_blocks_share_what_is_compiled_and_photos_of_other_sizes_add_nothing(recipe: dict, tmp_path) -> None:
    family = trained(nafnet, tmp_path, compile_network=True, **recipe)
    # NAFNet's blocks at two levels, its one Upsample, and the trial whether anything compiles
    assert counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]
    assert_same(trained(nafnet, tmp_path, **recipe), family)


@pytest.mark.slow
def test_cuda_graphs_leave_average_and_validation_alone(tmp_path) -> None:
    """The mode of torch.compile; its graphs need a GPU, everything else runs here."""
    recipe = {"ema_decay": 0.9}
    family = trained(plain, tmp_path, compile_network="reduce-overhead", **recipe)
    assert counters["stats"]["unique_graphs"] == 2  # the whole network, and the trial
    assert_same(trained(plain, tmp_path, **recipe), family)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "where"), [(True, "backward"), ("default", "forward")])
def test_a_network_that_cannot_be_compiled_is_trained_uncompiled(
    mode: bool | str,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the compiler refuses is in the network, forward or backward, not in a trial of something small."""

    def refuses(graph: torch.fx.GraphModule, _: Any) -> Any:
        if "conv" in graph.code:
            raise RuntimeError("no kernel for this convolution")
        return make_boxed_func(graph.forward)

    def accepts(graph: torch.fx.GraphModule, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=accepts if where == "backward" else refuses, bw_compiler=refuses)
    uncompiled = trained(nafnet, tmp_path)
    monkeypatch.setattr(torch, "compile", without_mode(partial(torch.compile, backend=backend)))
    family = trained(nafnet, tmp_path, compile_network=mode)
    said = [r.message for r in caplog.records if r.name.startswith("restora") and r.levelno > logging.INFO]
    assert len(said) == 1
    assert "no kernel for this convolution" in said[0]
    assert said[0].endswith("training continues uncompiled")
    for name, value in uncompiled.state_dict().items():
        assert torch.equal(family.state_dict()[name], value), name


@pytest.mark.usefixtures("traced")
@pytest.mark.slow
def test_names_of_weights_stay() -> None:
    network = nafnet()
    names = list(network.state_dict())
    assert compile_in_place(network, torch.device("cpu"))
    assert list(network.state_dict()) == names


@pytest.mark.slow
def test_a_class_of_blocks_may_have_a_graph_for_each_of_its_sizes(monkeypatch) -> None:
    """Widths of a network times patch sizes of progressive learning, on every supported torch: the limit
    of eight would leave the ninth uncompiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = plain()
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compile_in_place(network, torch.device("cpu"), "default")
        counters.clear()
        for side in range(12, 24):
            network(torch.zeros(1, 3, side, side))
    assert counters["stats"]["unique_graphs"] == 12


NODES = parts("network")
ONE_PER_CLASS = {NODES[name]["_target_"]: name for name in sorted(NODES) if name.endswith("_small")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_PER_CLASS.values())
def test_a_network_is_one_graph_under_autocast(name: str) -> None:
    """Nothing in it ends a graph (`fullgraph` raises where something does)."""
    network = build(dict(NODES[name]), "network")
    side = max(16, 2 * network.size_multiple)
    x = torch.rand(1, network.in_channels, side, side)
    condition = torch.rand(1, network.condition_channels, side, side) if network.condition_channels else None
    with torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(x, condition), network(x, condition))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(parts("loss")))
def test_a_loss_is_one_graph(name: str) -> None:
    loss = build(dict(parts("loss")[name]), "loss")
    restored, clean = torch.rand(2, 1, 3, 24, 24)
    whole = torch.compile(loss, backend="eager", fullgraph=True, dynamic=False)(restored, clean)
    torch.testing.assert_close(whole, loss(restored, clean))


SMALL = "patch_small"
OBJECTIVES = {
    "adversarial": [f"discriminator@objective.adversarial.discriminator={SMALL}"],
    "blind2unblind": [],
    "cycle": [
        *("network=resnet_generator_small", "objective.cycle.history=0"),
        f"discriminator@objective.cycle.clean_discriminator={SMALL}",
        f"discriminator@objective.cycle.degraded_discriminator={SMALL}",
    ],
    "cycle_noise": [
        "objective.cycle.history=0",
        f"discriminator@objective.cycle.clean_discriminator={SMALL}",
        f"discriminator@objective.cycle.degraded_discriminator={SMALL}",
    ],
    "feature_matching": [
        "objective=[adversarial,feature_matching]",
        f"discriminator@objective.adversarial.discriminator={SMALL}",
    ],
    "masked": [],
    "multi_scale": ["network=unet_small", "network.side_outputs=2"],
    "neighbor2neighbor": [],
    "noise2noise": [],
    "noise2void": [],
    "recorrupted": [],
    "supervised": [],
    "sure": [],
}
OTHERS = {
    "perceptual": "compares as supervised does, with a network that has to be loaded",
    "distil": "the same",
    "fastcut": "catches features by hooks, which compiled code passes by: it asks for no compiling",
}


def test_all_objectives_are_listed() -> None:
    assert set(OBJECTIVES) | set(OTHERS) == set(parts("objective"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_one_graph_under_autocast(name: str) -> None:
    """From the degraded photos to its terms, the network's pass and an opponent's half-step included."""
    words = OBJECTIVES[name]
    kinds = [word.partition("=")[0] for word in words]
    network = [] if "network" in kinds else ["network=dncnn_small"]
    config = compose("train", [*network, *([] if "objective" in kinds else [f"objective={name}"]), *words])
    objectives = build_objectives(config)
    made = build(config.network, "network")
    for part in objectives.values():
        part.join(objectives)
    clean, noisy, again = torch.rand(3, 2, 3, 32, 32)
    condition, keys = torch.full((2, 1, 32, 32), 0.1), torch.tensor([3, 8])

    def terms(clean: Tensor, noisy: Tensor, again: Tensor, condition: Tensor, keys: Tensor) -> Tensor:
        batch = Batch(clean, noisy, condition, ["a", "b"], keys=keys, redegrade=lambda _: again)
        step = Step(
            network=made,
            batch=replace(batch, unpaired=name == "cycle"),
            progress=0.5,
            number=3,
            record=lambda *_: None,
            scales=max(part.scales for part in objectives.values()),
        )
        found = [term for part in objectives.values() for term in part(step).values()]
        found += [part.own_loss(step)[0] for part in objectives.values() if isinstance(part, Opponent)]
        return torch.stack(found)

    given = (clean, noisy, again, condition, keys)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = terms(*given)
        got = torch.compile(terms, backend="eager", fullgraph=True, dynamic=False)(*given)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("name", "whole"),
    [("nafnet", False), ("restormer", False), ("swinir_denoise", False), ("dncnn", True), ("edcnn", True)],
)
@pytest.mark.slow
def test_regions_are_blocks_where_they_hold_the_weights(name: str, whole: bool) -> None:
    with torch.device("meta"):
        network = build(compose("train", [f"network={name}"]).network, "network")
    found = regions(network)
    assert (found == [network]) == whole
    if name == "nafnet":
        assert sum(isinstance(region, NAFBlock) for region in found) == 36
