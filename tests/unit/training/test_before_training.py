"""What a run says of the weights that it started from."""

from types import SimpleNamespace

import pytest

from restora.monitor import Monitor
from restora.training.before_training import ScoreBefore, compared


@pytest.mark.parametrize(("metric", "after"), [("val/psnr", 30.5), ("val/loss", 0.1)])
def test_an_improvement_is_two_figures(metric: str, after: float) -> None:
    before = {"val/psnr": 29.0, "val/loss": 0.2}
    monitor = Monitor(metric=metric, direction="max" if metric == "val/psnr" else "min")
    improved, line = compared({"source": "zoo:photo", "scores": before}, {metric: after}, monitor)
    assert improved
    assert line.startswith("validation: ")
    assert "with the weights of zoo:photo" in line
    assert "no better" not in line


def test_a_result_that_is_no_better_than_its_source_says_what_to_do() -> None:
    init = {"source": "zoo:photo", "scores": {"val/psnr": 29.22}}
    improved, line = compared(init, {"val/psnr": 27.58}, Monitor())
    assert not improved
    assert "29.22 dB with the weights of zoo:photo, 27.58 dB after the training, which is no better" in line
    assert "family.optimizer" in line


@pytest.mark.parametrize("init", [None, {"source": "a"}, {"source": "a", "scores": {}}])
def test_a_run_without_a_score_before_says_nothing(init: dict | None) -> None:
    assert compared(init, {"val/psnr": 27.58}, Monitor()) == (True, "")


def test_the_first_process_alone_records_the_scores() -> None:
    written = []
    for zero, init in ((False, None), (True, {"source": "a"})):
        record = SimpleNamespace(data={"init": init}, write=lambda: written.append(1))
        trainer = SimpleNamespace(is_global_zero=zero, callback_metrics={"val/psnr": 29.0, "train/loss": 1.0})
        ScoreBefore(record).on_sanity_check_end(trainer, None)  # type: ignore[arg-type]
    assert written == [1]
    assert record.data["init"] == {"source": "a", "scores": {"val/psnr": 29.0}}
