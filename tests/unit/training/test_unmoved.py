"""A run whose network restores nothing says so, once, and one that learns does not."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from restora.families.base import Family
from restora.networks.base import Network
from restora.training import unmoved
from restora.training.schedules import Constant

EACH_EPOCH = {"steps": 12, "val_check_interval": 1.0}


class Scaled(Network):
    """The photo times one learnt number, and a branch that nothing passes where it is `dead`."""

    def __init__(self, *, start: float = 1.0, dead: bool = False) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 3
        self.dead = dead
        self.factor = nn.Parameter(torch.tensor(start))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return x + (torch.relu(-x * x) * self.factor if self.dead else x * (self.factor - 1))


def warnings(
    fit: Callable[..., Trainer],
    caplog: pytest.LogCaptureFixture,
    network: Network,
    *,
    rate: float = 0.1,
    **options: object,
) -> list[str]:
    family = Family(
        network=network,
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=rate),
        schedule=Constant(),
    )
    fit(family, callbacks=[unmoved.NothingLearned()], **(EACH_EPOCH | options))
    return [record.getMessage() for record in caplog.records if record.name == unmoved.__name__]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmoved, "_EARLY", 4)


def test_a_dead_branch_is_named_once(fit: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    """Three validations, of which the second and the third could say it."""
    (said,) = warnings(fit, caplog, Scaled(dead=True))
    assert said.startswith("after 8 steps")
    assert "try another learning rate" in said


def test_weights_that_stay_are_named(fit: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    (said,) = warnings(fit, caplog, Scaled(start=0.5), rate=0.0)
    assert "nothing that counts has changed" in said


def test_the_input_returned_is_named(fit: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    """The weight moves, by less than anybody sees."""
    (said,) = warnings(fit, caplog, Scaled(), rate=1e-5)
    assert "returns its input" in said


def test_what_learns_is_left_alone(fit: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(fit, caplog, Scaled(start=0.5)) == []


def test_the_first_steps_say_nothing(fit: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(fit, caplog, Scaled(dead=True), steps=7) == []
