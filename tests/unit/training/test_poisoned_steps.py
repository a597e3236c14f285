"""A step that is not finite leaves weights, optimiser and batch norms alone, whether its flag is read at once
or, as on a GPU, many steps later."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_callbacks import Poison
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from restora.families.base import Family
from restora.families.gan import GanFamily
from restora.files import read_json_lines
from restora.losses.adversarial import VanillaLoss
from restora.networks.discriminators import PatchDiscriminator
from restora.networks.dncnn import DnCNN
from restora.objectives.adversarial import Adversarial
from restora.objectives.supervised import Supervised
from restora.training import poison
from restora.training.callbacks import NonFinite
from restora.training.muon import Muon
from restora.training.poison import SkipNonFinite
from restora.training.schedules import Constant

OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=0.01),
    "sgd": partial(torch.optim.SGD, lr=0.01),
    "momentum": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "muon": partial(Muon, lr=0.01, weight_decay=0.1),
}
UNVALIDATED = {"val_check_interval": 1000, "check_val_every_n_epoch": None}


def family(kind: str) -> Family:
    torch.manual_seed(0)
    optimizer = OPTIMIZERS.get(kind, OPTIMIZERS["adam"])
    network = DnCNN(in_channels=3, depth=4, channels=4, batch_norm=True, bias=True)
    if kind != "gan":
        return Family(network=network, loss=nn.MSELoss(), optimizer=optimizer, schedule=Constant())
    opposing = Adversarial(
        discriminator=PatchDiscriminator(in_channels=3, channels=4, levels=1),
        loss=VanillaLoss(),
        optimizer=optimizer,
    )
    return GanFamily(
        network=network,
        objective={"supervised": Supervised(loss=nn.MSELoss()), "adversarial": opposing},
        optimizer=optimizer,
        schedule=Constant(),
    )


class Watch(Callback):
    """Notes before which steps weights, statistics or optimisers had changed."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        state = {key: value for key, value in module.state_dict().items() if not key.startswith("ema.")}
        optimizers = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
        self.states.append(copy.deepcopy((state, optimizers)))

    on_train_end = on_train_batch_start

    def still(self) -> list[int]:
        """Steps that changed nothing."""
        return [
            step
            for step, (before, after) in enumerate(zip(self.states, self.states[1:], strict=False))
            if same(before, after)
        ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def trained(
    fit: Callable[..., Trainer], kind: str, what: str, folder: Path, steps: list[int], **options: Any
) -> Watch:
    folder.mkdir(exist_ok=True)
    watch, skip = Watch(), SkipNonFinite(directory=folder)
    poisoning = Poison(what=what, steps=steps)
    callbacks = [watch, poisoning, skip]
    fit(family(kind), steps=6, callbacks=callbacks, **(UNVALIDATED | options))
    assert skip.skipped == len(steps)
    return watch


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        *((kind, what) for kind in ("adam", "gan") for what in ("degraded", "clean", "loss", "gradient")),
        *(("sgd", "degraded"), ("momentum", "gradient"), ("muon", "gradient"), ("muon", "loss")),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing(
    kind: str, what: str, fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = trained(fit, kind, what, tmp_path / "now", [2, 3])
    assert at_once.still() == [2, 3]
    rows = read_json_lines(tmp_path / "now" / "poison.jsonl")
    assert [(row["step"], row["photos"]) for row in rows] == [
        (2, ["2a.png", "2b.png"]),
        (3, ["3a.png", "3b.png"]),
    ]
    monkeypatch.setattr(SkipNonFinite, "_reads_late", lambda *_: True)
    monkeypatch.setattr(poison, "_WINDOW", 4)
    late = trained(fit, kind, what, tmp_path / "late", [2, 3])
    assert same(late.states, at_once.states), "late or at once, the same weights"
    assert str(read_json_lines(tmp_path / "late" / "poison.jsonl")) == str(rows)


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "adam"])
def test_a_first_step_that_is_left_out_late_leaves_nothing_behind(
    kind: str, fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose momentum a kernel would otherwise take from memory that nobody has written."""
    at_once = trained(fit, kind, "gradient", tmp_path / "now", [0, 3])
    monkeypatch.setattr(SkipNonFinite, "_reads_late", lambda *_: True)
    late = trained(fit, kind, "gradient", tmp_path / "late", [0, 3])
    assert same([weights for weights, _ in late.states], [weights for weights, _ in at_once.states])


def test_one_batch_of_an_accumulation_spoils_its_step(fit: Callable[..., Trainer], tmp_path: Path) -> None:
    watch = trained(
        fit, "adam", "degraded", tmp_path, [1], accumulate_grad_batches=2, max_steps=3, limit_train_batches=4
    )
    assert same(watch.states[2], watch.states[4])  # before and after the two batches of the second step
    assert not same(watch.states[4], watch.states[6])
    (row,) = read_json_lines(tmp_path / "poison.jsonl")
    assert (row["step"], row["batches"], len(row["photos"])) == (1, [2, 3], 4)


def test_what_is_computed_again_is_named_once(fit: Callable[..., Trainer], tmp_path: Path) -> None:
    old = '{"step": 0, "batches": [0], "photos": []}\n{"step": 2, "batc'
    (tmp_path / "poison.jsonl").write_text(old)
    trained(fit, "adam", "loss", tmp_path, [4])
    assert [row["step"] for row in read_json_lines(tmp_path / "poison.jsonl")] == [4]


def test_a_training_without_a_finite_step_fails(fit: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(NonFinite, match="every step was not finite"):
        trained(fit, "adam", "loss", tmp_path, list(range(6)))


class Rooted(DnCNN):
    """A network whose output holds NaN from the start."""

    def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return (super().restore(x, condition) - 10).sqrt()


@pytest.mark.parametrize(
    ("what", "first", "advice"),
    [
        ("degraded", "degraded photos", "The degraded photos were not finite before the network saw them"),
        ("clean", "clean photos or targets", "The clean photos or targets were not finite"),
        ("output", "loss", "The output of Rooted was the first not finite, with the weights that"),
        ("loss", "loss", "The loss was the first not finite, with the weights that the training starts from"),
        ("gradient", "gradients", "The gradients were the first not finite, with the weights that"),
    ],
)
def test_what_was_the_first_not_finite_is_said(
    what: str, first: str, advice: str, fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    module = family("adam")
    if what == "output":
        network = Rooted(in_channels=3, depth=4, channels=4, batch_norm=True, bias=True)
        module = Family(network=network, loss=nn.MSELoss(), optimizer=OPTIMIZERS["adam"], schedule=Constant())
    callbacks = [Poison(what=what), SkipNonFinite(directory=tmp_path, patience=4, then="stop")]
    with pytest.raises(NonFinite) as caught:
        fit(module, steps=6, callbacks=callbacks, **UNVALIDATED)
    said = str(caught.value)
    assert said.startswith(f"4 steps in a row were not finite, steps 0 to 3. {advice}")
    assert "family.optimizer.lr" not in said
    assert {row["first"] for row in read_json_lines(tmp_path / "poison.jsonl")} == {first}


class Loud(DnCNN):
    """A network whose output is too large for float16, and not for float32."""

    def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        y = super().restore(x, condition)
        return nn.functional.conv2d(y, 1e6 * torch.eye(3)[..., None, None])


def test_the_output_is_looked_at_in_the_precision_of_the_training(
    fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    network = Loud(in_channels=3, depth=3, channels=4)
    module = Family(network=network, loss=nn.MSELoss(), optimizer=OPTIMIZERS["adam"], schedule=Constant())
    skip = SkipNonFinite(directory=tmp_path, patience=2, then="stop")
    half = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(NonFinite, match="The output of Loud was the first not finite"):
        fit(module, steps=3, callbacks=[skip], plugins=[half], **UNVALIDATED)


def test_a_run_that_has_learnt_is_advised_a_lower_rate(fit: Callable[..., Trainer], tmp_path: Path) -> None:
    callbacks = [
        Poison(what="loss", steps=[2, 3, 4]),
        SkipNonFinite(directory=tmp_path, patience=3, then="stop"),
    ]
    with pytest.raises(NonFinite, match=r"steps 2 to 4\. The loss was .* Lower family\.optimizer\.lr"):
        fit(family("adam"), steps=6, callbacks=callbacks, **UNVALIDATED)
