"""Schedules are functions of the share of the training that is done."""

from functools import partial

import pytest

from restora import registry
from restora.composing.constructors import defaults
from restora.training.schedules import Constant, Cosine, Exponential, Linear, MultiStep


def test_cosine_holds_then_falls_to_its_final_factor() -> None:
    schedule = Cosine(final=0.1, hold=0.3)
    assert schedule(0.0) == schedule(0.3) == 1.0
    assert schedule(0.65) == pytest.approx(0.55)  # half way between 1 and 0.1
    assert schedule(1.0) == pytest.approx(0.1)


def test_warmup_rises_and_meets_the_cosine_without_a_jump() -> None:
    schedule = Cosine(warmup=0.1)
    values = [schedule(i / 1000) for i in range(101)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.01)
    assert schedule(0.0999) == pytest.approx(schedule(0.1), abs=2e-3)


def test_multi_step_and_exponential() -> None:
    steps = MultiStep(milestones=[0.5, 0.75], gamma=0.5)
    assert [steps(p) for p in (0.0, 0.49, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 0.25, 0.25]
    falling = Exponential(final=1e-3)
    assert falling(0.0) == 1.0
    assert falling(1.0) == pytest.approx(1e-3)
    assert falling(0.5) == pytest.approx(falling(1 / 3) * falling(1 / 6))
    assert Constant()(0.7) == 1.0


def test_linear_holds_then_falls_to_nothing() -> None:
    schedule = Linear(hold=0.5)
    assert [schedule(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 1, 1, 0.5, 0]


def halving(share: float, *, floor: float = 0.0) -> float:
    return max(1 - share / 2, floor)


def make_halving(*, floor: float = 0.0):
    return partial(halving, floor=floor)


@pytest.mark.parametrize("made", [halving, make_halving])
def test_a_schedule_of_ones_own_is_a_function_or_what_makes_one(made, monkeypatch) -> None:
    """Without `_partial_`; its file and the command line set its further arguments alone."""
    monkeypatch.setitem(registry._parts["schedule"], "halving", made)
    assert defaults("schedule", "halving") == {"floor": 0.0}
    schedule = registry.build({"_target_": "halving", "floor": 0.75}, "schedule", foreign=True)
    assert [schedule(share) for share in (0.0, 1.0)] == [1.0, 0.75]
    assert registry.build({"_target_": "math.cos"}, "schedule", foreign=True)(0.0) == 1.0


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Cosine(warmup=0.6, hold=0.5), "family.schedule.warmup"),
        (lambda: Cosine(final=2.0), "family.schedule.final"),
        (lambda: MultiStep(milestones=[200_000]), "family.schedule.milestones"),
        (lambda: MultiStep(milestones=[0.2, 0.8], gamma=-0.5), "family.schedule.gamma"),
        (lambda: Exponential(final=0.0), "family.schedule.final"),
        (lambda: Linear(hold=1.0), "family.schedule.hold"),
    ],
)
def test_bad_values_are_named(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
