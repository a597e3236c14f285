"""compile=auto takes the fastest way that works, says why, and trains what an uncompiled run trains.

There is no GPU in these tests. Ways are compiled by torch.compile with a backend that generates no code, the
times are given, and what a CUDA graph does to memory is played by `Overwritten`: all that a replay has given,
gradients too, is lost when the next one begins.
"""

import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from ready_batches import ReadyBatches
from torch import Tensor, nn
from torch.utils.data import DataLoader

from restora.families import compiling_auto
from restora.families.base import Family
from restora.families.compiling_auto import FastestPass
from restora.families.ways import BY_BLOCK, ONE_CUDA_GRAPH, UNCOMPILED, Tried, Way, fastest, ways_of
from restora.networks.dncnn import DnCNN
from restora.networks.nafnet import NAFNet
from restora.objectives.base import Objective, Step
from restora.training.schedules import Constant

SECONDS = {UNCOMPILED: 0.1, BY_BLOCK: 0.05, ONE_CUDA_GRAPH: 0.01}


class Sizes(ReadyBatches):
    """Training patches of one side after another, and validation photos of a third."""

    def __init__(self, sides: list[int]) -> None:
        super().__init__()
        self.sides = sides

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self._photos(i, side, 2) for i, side in enumerate(self.sides)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self._photos(99, 20, 1)], batch_size=None)

    @staticmethod
    def _photos(seed: int, side: int, count: int) -> dict[str, Any]:
        clean = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
        return {"clean": clean, "degraded": clean / 2, "condition": None, "names": list("ab")[:count]}


class Twice(Objective):
    """Makes two passes in a step."""

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"": (step.restored - step.restore(step.degraded, None).flip(-1)).square().mean()}


def dncnn() -> DnCNN:
    torch.manual_seed(0)
    return DnCNN(in_channels=3, depth=3, channels=8)


def nafnet() -> NAFNet:
    torch.manual_seed(0)
    network = NAFNet(width=8, encoder_blocks=[2], middle_blocks=2, decoder_blocks=[1])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


class Overwritten:
    """torch.compile, and the memory of what it replays."""

    def __init__(self) -> None:
        self.lost: list[Tensor] = []
        self.begun = self.replayed = 0
        self.fail: Callable[[str | None], None] = lambda _: None

    def compile(self, function: Any, *, dynamic: bool, mode: str | None = None) -> Any:
        self.fail(mode)
        made = COMPILE(function, dynamic=dynamic, backend="eager")
        return made if mode is None else partial(self._replay, made)

    def _replay(self, made: Any, *arguments: Any) -> Tensor:
        self.replayed += 1
        y: Tensor = made(*arguments)
        self.lost.append(y.data)
        y.register_hook(lambda grad: self.fail("backward"))
        return y

    def begin(self) -> None:
        self.begun += 1
        for value in self.lost:
            value.fill_(float("nan"))
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.fill_(float("nan"))
        self.lost.clear()

    parameters: tuple[nn.Parameter, ...] = ()


COMPILE = torch.compile


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == compiling_auto.__name__]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Overwritten:
    played = Overwritten()
    caplog.set_level(logging.INFO, logger=compiling_auto.__name__)
    monkeypatch.setattr(torch, "compile", played.compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", played.begin)
    monkeypatch.setattr(compiling_auto, "why_not", lambda _: None)
    monkeypatch.setattr(compiling_auto, "ways_of", lambda *_: ways_of("auto", torch.device("cuda")))
    timed = FastestPass._timed

    def given(self: FastestPass, arguments: list[Any]) -> float:
        timed(self, arguments)
        return SECONDS[self.way]

    monkeypatch.setattr(FastestPass, "_timed", given)
    monkeypatch.setattr(compiling_auto, "_ROUND_SECONDS", 0.0)
    torch._dynamo.reset()
    return played


def trained(
    make: Callable[[], Any],
    folder: Path,
    compile_network: bool | str,
    *,
    sides: tuple[int, ...] = (16, 16, 16, 16),
    played: Overwritten | None = None,
    objective: dict[str, Objective] | None = None,
    **options: Any,
) -> Family:
    network = make()
    if played is not None:
        played.parameters = tuple(network.parameters())
    family = Family(
        network=network,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        schedule=Constant(),
        loss=None if objective else nn.MSELoss(),
        objective=objective,
        ema_decay=0.9,
        compile_network=compile_network,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "check_val_every_n_epoch": None}
    Trainer(
        accelerator="cpu",
        max_steps=len(sides),
        val_check_interval=2,
        default_root_dir=folder,
        **quiet,
        **options,
    ).fit(family, Sizes(list(sides)))
    return family


def same(one: Family, other: Family) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    assert other.scores[0]["psnr"] == pytest.approx(one.scores[0]["psnr"], abs=1e-3)


@pytest.mark.parametrize(("make", "precision"), [(dncnn, "32-true"), (nafnet, "bf16-mixed")])
@pytest.mark.slow
def test_a_graph_is_replayed_where_it_is_the_fastest(
    make: Callable[[], Any],
    precision: str,
    graphs: Overwritten,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """And trains the same weights, average and validation, though nothing of a replay outlives its step."""
    family = trained(make, tmp_path, "auto", played=graphs, precision=precision)
    assert family._passes is not None
    assert family._passes.way == ONE_CUDA_GRAPH
    assert graphs.begun == graphs.replayed > 3  # its trial, and all steps but the first
    (line,) = lines(caplog)
    said = re.sub(r" \(compiled in \d+ s\)", "", line)
    assert said.endswith(
        "uncompiled 100 ms; by block 50 ms; as one CUDA graph 10 ms; taken: as one CUDA graph"
    )
    same(trained(make, tmp_path, False, precision=precision), family)


@pytest.mark.parametrize(("seconds", "taken"), [(0.09, BY_BLOCK), (0.099, UNCOMPILED), (None, UNCOMPILED)])
def test_a_way_that_compiles_is_taken_where_it_is_clearly_faster(seconds: float | None, taken: Way) -> None:
    assert fastest([Tried(UNCOMPILED, 0.1), Tried(BY_BLOCK, seconds)]) == taken


def test_a_step_replays_once_and_keeps_no_memory_of_the_graph(graphs: Overwritten) -> None:
    """A gradient that is kept would be such memory, which the next replay overwrites."""
    network = dncnn()
    passes = FastestPass(network, device=torch.device("cpu"), ways=(ONE_CUDA_GRAPH,))
    x = torch.rand(1, 3, 16, 16)
    for _ in range(2):  # the first is tried before the second
        passes.begin_step()
        network(x).square().mean().backward()
    assert passes.way == ONE_CUDA_GRAPH
    passes.begin_step()
    assert all(parameter.grad is None for parameter in network.parameters())
    before = graphs.replayed
    first, second = network(x), network(x)
    assert graphs.replayed == before + 1
    torch.testing.assert_close(first, second)
    passes.begin_step()
    torch.testing.assert_close(first, second)


def test_another_size_is_tried_once_and_gives_the_memory_back(
    graphs: Overwritten, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    sides = (16, 16, 16, 24, 24, 24, 16, 24)  # the last two: a size that was tried, and the present one
    family = trained(dncnn, tmp_path, "auto", sides=sides, played=graphs)
    assert len(lines(caplog)) == 2
    assert "uncompiled" not in lines(caplog)[1]  # what was chosen still works
    assert len(resets) == 1
    same(trained(dncnn, tmp_path, False, sides=sides), family)


@pytest.mark.slow
def test_what_fails_is_left_out_with_its_reason(
    graphs: Overwritten, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fail(where: str | None) -> None:
        if where == "backward":
            raise RuntimeError("CUDA out of memory.\nTried to allocate")

    graphs.fail = fail
    family = trained(nafnet, tmp_path, "auto", played=graphs)
    (line,) = lines(caplog)
    assert "as one CUDA graph failed: CUDA out of memory." in line
    assert line.endswith("taken: by block")
    same(trained(nafnet, tmp_path, False), family)


def test_where_nothing_compiles_training_goes_on(
    graphs: Overwritten, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fail(_: str | None) -> None:
        raise RuntimeError("no ptxas")

    graphs.fail = fail
    same(trained(dncnn, tmp_path, False), trained(dncnn, tmp_path, "auto"))
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.message.count("failed: no ptxas") == 2
    assert record.message.endswith("training continues uncompiled")


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("gradients are accumulated over batches", {"accumulate_grad_batches": 2}),
        ("a step makes several passes", {"objective": {"twice": Twice()}}),
    ],
)
def test_graphs_are_not_tried_where_their_memory_would_be_seen(
    said: str, options: dict, graphs: Overwritten, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    family = trained(nafnet, tmp_path, "auto", played=graphs, **options)
    assert f"as one CUDA graph not tried: {said}; taken: by block" in lines(caplog)[0]
    assert graphs.begun == 0
    same(trained(nafnet, tmp_path, False, **options), family)


@pytest.mark.parametrize(("at_most", "taken"), [(1e-9, BY_BLOCK), (1e9, ONE_CUDA_GRAPH)])
def test_a_network_that_would_compile_for_too_long_stays_by_block(
    at_most: float, taken: Way, graphs: Overwritten, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling_auto, "COMPILING_AT_MOST", at_most)
    family = trained(nafnet, tmp_path, "auto", played=graphs, sides=(16, 16))
    assert family._passes is not None
    assert family._passes.way == taken


@pytest.mark.parametrize("mode", ["auto", "reduce-overhead"])
def test_on_a_cpu_nothing_is_replayed(mode: str) -> None:
    assert not any(way.graphs for way in ways_of(mode, torch.device("cpu")))
    assert any(way.graphs for way in ways_of(mode, torch.device("cuda")))
