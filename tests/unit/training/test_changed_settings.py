"""What a resumed run makes of settings that its checkpoint was not trained with."""

from argparse import Namespace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from restora.config import ConfigError
from restora.families.base import Family
from restora.networks.dncnn import DnCNN
from restora.training.poison import SkipNonFinite
from restora.training.resuming import ConfiguredOptimizer, check_changes, differences
from restora.training.schedules import Constant


def family(lr: float, *, ema_decay: float | None = 0.9, **options: Any) -> Family:
    return Family(
        network=DnCNN(in_channels=3, depth=3, channels=4, batch_norm=False, bias=True),
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.AdamW, lr=lr, **options),
        schedule=Constant(),
        ema_decay=ema_decay,
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


def test_a_rate_that_was_reduced_after_steps_that_were_not_finite_stays_so_until_it_is_changed() -> None:
    assert resumed(family(0.01), family(0.01), returned=2)[0]["initial_lr"] == 0.0025
    assert resumed(family(0.004), family(0.01), returned=2)[0]["initial_lr"] == 0.004


PLAIN: dict[str, Any] = {
    "family": {"optimizer": {"_target_": "adam", "lr": 0.1}, "freeze": [], "rate_factors": None},
    "objective": {"supervised": {"_target_": "supervised"}},
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"family": {"rate_factors": {"head": 0.1}}}, "family.rate_factors"),
        ({"family": {"freeze": ["head"]}}, "family.freeze"),
        ({"family": {"optimizer": {"_target_": "sgd", "lr": 0.1}}}, "family.optimizer._target_"),
    ],
    ids=str,
)
def test_what_the_state_of_the_optimizer_belongs_to_stays(change: dict[str, Any], key: str) -> None:
    """That state is by position: with other groups it would be taken for that of other weights."""
    changed = differences(PLAIN, PLAIN | change)
    assert [*changed] == [key]
    with pytest.raises(ConfigError, match=key):
        check_changes(changed)
    assert [*differences(PLAIN | change, PLAIN)] == [key]


def test_a_further_objective_is_a_change() -> None:
    other = PLAIN | {"objective": PLAIN["objective"] | {"adversarial": {"weight": 1}}}
    assert differences(PLAIN, other) == {"objective": (["supervised"], ["supervised", "adversarial"])}
    assert differences(PLAIN, PLAIN) == {}
    check_changes(differences(PLAIN, PLAIN | {"family": {"optimizer": {"_target_": "torch.optim.AdamW"}}}))


def test_a_precision_by_another_of_its_names_is_no_change() -> None:
    one = {"trainer": {"precision": "float32"}}
    assert differences(one, {"trainer": {"precision": "32-true"}}) == {}
    assert differences(one, {"trainer": {"precision": "bf16"}}) == {
        "trainer.precision": ("32-true", "bf16-mixed")
    }
    assert differences({}, one) == {}


def test_a_checkpoint_without_an_average_names_the_key() -> None:
    averaged, raw = family(0.1), family(0.1, ema_decay=None)
    for own, loaded in ((averaged, raw), (raw, averaged)):
        with pytest.raises(ValueError, match="leave family.ema_decay as it was"):
            own.on_load_checkpoint({"state_dict": loaded.state_dict()})
    raw.on_load_checkpoint({"state_dict": raw.state_dict()})
