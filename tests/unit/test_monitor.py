"""The metric and the direction that runs are chosen by."""

import math

import pytest

from restora.config import compose
from restora.evaluation.scorer import check_monitored
from restora.metrics.registry import METRICS
from restora.monitor import LOWER_IS_BETTER, Monitor


@pytest.mark.parametrize(("direction", "better"), [("max", 2.0), ("min", 1.0)])
def test_direction_says_which_figure_is_preferred(direction: str, better: float) -> None:
    monitor = Monitor(metric="val/niqe", direction=direction)
    other = 3.0 - better
    assert monitor.better(better, other)
    assert not monitor.better(other, better)
    assert not monitor.better(better, better)
    assert monitor.better(other, None)
    assert monitor.better(other, math.nan)
    assert not monitor.better(math.nan, other)


def test_runs_from_before_there_was_a_choice_are_chosen_by_psnr() -> None:
    assert Monitor.of({}) == Monitor(metric="val/psnr", direction="max")
    chosen = Monitor.of({"monitor": {"metric": "val/niqe", "direction": "min"}})
    assert (chosen.name, chosen.in_words(4.25)) == ("niqe", "niqe 4.2500")


def test_the_direction_is_that_of_the_metric() -> None:
    assert {*LOWER_IS_BETTER} == {"loss"} | {name for name in METRICS if not METRICS[name].higher_is_better}
    assert [
        compose("train", [f"monitor.metric=val/{name}"]).monitor.direction for name in ("ssim", "loss")
    ] == [
        "max",
        "min",
    ]
    config = compose("train", ["monitor.metric=val/lpips"])
    assert config.callbacks.best.direction == "min"
    assert compose("train", ["monitor.metric=val/loss", "monitor.direction=max"]).monitor.direction == "max"
    assert Monitor.of({"monitor": {"metric": "val/niqe", "direction": None}}).direction == "min"


def test_what_is_not_measured_in_validation_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"monitor\.metric must be a metric that validation logs, such as val/psnr"
    ):
        Monitor(metric="test/psnr")
    with pytest.raises(ValueError, match=r"monitor\.direction must be max or min, got 'up'"):
        Monitor(direction="up")


@pytest.mark.parametrize(("metric", "right"), [("psnr", "max"), ("loss", "min"), ("delta_e", "min")])
def test_a_direction_to_the_worse_is_refused_before_training(metric: str, right: str) -> None:
    wrong = "min" if right == "max" else "max"
    check_monitored(Monitor(metric=f"val/{metric}", direction=right))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"the worst val/{metric}: set monitor.direction={right}"):
        check_monitored(Monitor(metric=f"val/{metric}", direction=wrong))  # type: ignore[arg-type]
