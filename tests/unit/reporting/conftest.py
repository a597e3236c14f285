"""A sweep as `restora report` finds it."""

import json

import pytest
from run_folders import HOSTILE, record, write_run


@pytest.fixture
def sweep(tmp_path):
    """Three finished runs of a sweep, one that failed and one that was cut off."""
    for job, (name, family, score) in enumerate(
        (("dncnn", "residual_cnn", 27.0), ("nafnet", "nafnet", 29.0), ("unet", "unet", 28.0))
    ):
        write_run(tmp_path / "sweep" / f"{job}_{name}", psnr=score, name=name, family=family)
    failed = tmp_path / "sweep" / "3_gan"
    failed.mkdir()
    entries = {"status": "failed", "error": f"ValueError: {HOSTILE}", "test": None, "name": "gan"}
    (failed / "run.json").write_text(json.dumps(record(**entries)))
    (tmp_path / "sweep" / "4_cut").mkdir()
    (tmp_path / "sweep" / "4_cut" / "run.json").write_text('{"format": 1')
    return tmp_path / "sweep"
