"""The best figure of a resumed run, where validation measures something else than before."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from restora.training.callbacks import BestCheckpoint
from restora.training.comparable import ComparableFigures, measured
from restora.training.record import RunInfo, RunRecord

CONFIG: dict[str, Any] = {
    "name": "dncnn",
    "task": "denoise",
    "seed": 1,
    "degradation": {"_target_": "gaussian_noise", "sigma": 25},
    "objective": {"supervised": {"weight": 1.0}},
    "data": {"_target_": "photos", "channels": "rgb", "val_crop": None, "batch_size": 4},
    "protocol": {"color": None},
    "trainer": {"limit_val_batches": None, "max_steps": 5},
}


@pytest.mark.parametrize(
    ("change", "forgotten"),
    [
        ({"monitor": {"metric": "val/ssim", "direction": None}}, True),
        ({"protocol": {"color": "y"}}, True),
        ({"degradation": {"_target_": "gaussian_noise", "sigma": 50}}, True),
        ({"trainer": {"limit_val_batches": 2}}, True),
        ({"trainer": {"limit_val_batches": None, "max_steps": 9}}, False),
        ({"data": CONFIG["data"] | {"batch_size": 8}}, False),
        ({"objective": {"supervised": {"weight": 2.0}}}, False),
    ],
    ids=str,
)
def test_the_best_figure_is_forgotten_where_validation_measures_something_else(
    change: dict[str, Any], forgotten: bool, tmp_path: Path
) -> None:
    """A best PSNR of 28 is never exceeded by an SSIM."""
    figures = [
        ComparableFigures(RunRecord(RunInfo(folder=tmp_path, config=config)))
        for config in (CONFIG, CONFIG | change)
    ]
    best = BestCheckpoint(directory=tmp_path)
    best.best = 28.0
    record = figures[1].record
    record.data["metrics"].update(best={"val/psnr": 28.0, "step": 5}, last={"val/psnr": 27.0, "step": 8})
    trainer: Any = Namespace(callbacks=[*figures[1:], best], is_global_zero=True)
    figures[0].on_fit_start(Namespace(callbacks=[]), None)  # type: ignore[arg-type]
    figures[1].load_state_dict(figures[0].state_dict())
    figures[1].on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert (best.best is None) == forgotten
    assert (record.data["metrics"] == {"best": None, "last": None}) == forgotten


def test_objectives_count_where_they_are_monitored() -> None:
    loss = CONFIG | {"monitor": {"metric": "val/loss", "direction": None}}
    assert measured(loss, "") != measured(loss | {"objective": {}}, "")
    assert measured(CONFIG, "") == measured(CONFIG | {"objective": {}}, "")
    assert measured(CONFIG, "") != measured(CONFIG, "other photos")
