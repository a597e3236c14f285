"""run.json: strict JSON whatever was measured, and the history of a run that goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from restora.training.record import RunInfo, RunRecord

CONFIG = {"name": "dncnn", "task": "denoise", "seed": 1, "network": {"_target_": "dncnn"}, "degradation": {}}


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def stored(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "run.json").read_text(), parse_constant=refused)
    assert isinstance(content, dict)
    return content


def test_scores_that_are_no_numbers_are_null_and_named(tmp_path: Path) -> None:
    record = RunRecord(RunInfo(folder=tmp_path, config=CONFIG | {"limit": math.inf}))
    record.data["metrics"]["last"] = {"val/psnr": math.nan, "step": 5}
    row = {"name": "a", "psnr": math.inf, "ssim": 1.0, "input_psnr": 20.0, "input_ssim": 0.5, "seconds": 0.1}
    record.take_test([row])
    record.close("finished")
    content = stored(tmp_path)
    assert content["metrics"]["last"] == {"val/psnr": None, "step": 5}
    assert content["test"]["images"][0]["psnr"] is None
    assert content["not_finite"] == {
        "config.limit": "Infinity",
        "metrics.last.val/psnr": "NaN",
        "test.images.0.psnr": "Infinity",
        "test.psnr": "Infinity",
    }


@pytest.mark.parametrize("bare", [False, True], ids=["strict", "as it was written before"])
def test_a_run_that_goes_on_keeps_its_history_with_such_numbers(bare: bool, tmp_path: Path) -> None:
    first = RunRecord(RunInfo(folder=tmp_path, config=CONFIG))
    first.data["metrics"]["best"] = {"val/psnr": math.nan, "step": 5}
    first.write()
    if bare:
        (tmp_path / "run.json").write_text(json.dumps(first.data))
        assert "NaN" in (tmp_path / "run.json").read_text()
    second = RunRecord(RunInfo(folder=tmp_path, config=CONFIG))
    second.write()
    assert stored(tmp_path)["not_finite"] == {"metrics.best.val/psnr": "NaN"}
