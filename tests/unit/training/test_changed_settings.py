"""What a resumed run makes of settings that its checkpoint was not trained with."""

from argparse import Namespace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from restora.families.base import Family
from restora.networks.dncnn import DnCNN
from restora.training.poison import SkipNonFinite
from restora.training.resuming import ConfiguredOptimizer
from restora.training.schedules import Constant


def family(lr: float, rate_factors: dict[str, float] | None = None, **options: Any) -> Family:
    return Family(
        network=DnCNN(in_channels=3, depth=3, channels=4, batch_norm=False, bias=True),
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.AdamW, lr=lr, **options),
        schedule=Constant(),
        rate_factors=rate_factors,
    )


def resumed(now: Family, before: Family, *, returned: int = 0) -> list[dict[str, Any]]:
    """The groups of an optimiser that was trained with `before` and goes on with `now`."""
    loaded: Any = now.configure_optimizers()
    made: Any = before.configure_optimizers()
    for group in made.param_groups:
        group["initial_lr"] *= 0.5**returned
    loaded.load_state_dict(made.state_dict())
    skip = SkipNonFinite(directory=".")
    skip.returned = returned
    trainer: Any = Namespace(optimizers=[loaded], callbacks=[skip])
    ConfiguredOptimizer().on_train_start(trainer, now)
    return list(loaded.param_groups)


def test_the_optimizer_of_a_resumed_run_has_the_configured_options() -> None:
    """On each process, whether or not it knows what has changed."""
    (group,) = resumed(family(0.002, weight_decay=0.3), family(0.01))
    assert (group["initial_lr"], group["weight_decay"]) == (0.002, 0.3)
    factors = {"model.0.*": 0.1}
    first, last = resumed(family(0.01, factors), family(0.01, {"model.0.*": 0.5}))
    assert first["initial_lr"] == pytest.approx(0.001)
    assert last["initial_lr"] == 0.01


def test_a_rate_that_was_reduced_after_steps_that_were_not_finite_stays_so_until_it_is_changed() -> None:
    assert resumed(family(0.01), family(0.01), returned=2)[0]["initial_lr"] == 0.0025
    assert resumed(family(0.004), family(0.01), returned=2)[0]["initial_lr"] == 0.004
