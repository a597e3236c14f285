"""Choosing a run: by validation, among runs of one problem, and with a word about one that is no good."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import record

from restora.artifact.selection import best_run


def put(folder: Path, name: str, *, val: float, config: dict[str, Any] | None = None, **entries: Any) -> None:
    made = copy.deepcopy(record(**entries))
    made["metrics"]["best"] = {"val/psnr": val, "val/input_psnr": 20.0, "val/ssim": 1 - val / 100, "step": 9}
    made["config"] |= config or {}
    (folder / name).mkdir(parents=True)
    (folder / name / "run.json").write_text(json.dumps(made))


def test_validation_chooses_and_never_the_photos_that_are_reported(tmp_path: Path) -> None:
    put(tmp_path, "a/0", val=28.0, psnr=31.0)
    put(tmp_path, "a/1", val=29.0, psnr=27.0)
    put(tmp_path, "a/2", val=33.0, status="failed")
    put(tmp_path, "a/3", val=float("nan"))
    (tmp_path / "a/4").mkdir()
    (tmp_path / "a/4/run.json").write_text("{")
    chosen = best_run(tmp_path)
    assert chosen.run == tmp_path / "a" / "1"
    assert chosen.value == 29.0
    assert chosen.warning == ""
    with pytest.raises(ValueError, match="has no finished run with a validation score"):
        best_run(tmp_path / "a" / "2")


def test_the_monitor_of_the_runs_decides_which_way_is_better(tmp_path: Path) -> None:
    monitor = {"monitor": {"metric": "val/ssim", "direction": "min"}}
    put(tmp_path, "0", val=28.0, config=monitor)
    put(tmp_path, "1", val=30.0, config=monitor)
    put(tmp_path, "2", val=29.0, config=monitor)
    chosen = best_run(tmp_path)
    assert chosen.run == tmp_path / "1"
    assert chosen.monitor.metric == "val/ssim"
    assert chosen.value == pytest.approx(0.7)


def test_a_run_that_is_worse_than_its_input_is_not_chosen_in_silence(tmp_path: Path) -> None:
    put(tmp_path, "0", val=18.0)
    assert (
        best_run(tmp_path).warning == "worse than its input in PSNR (18.00 dB, the degraded photos 20.00 dB)"
    )


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"degradation": {"_target_": "gaussian_noise", "sigma": 50}}, "degradation"),
        ({"data": {"source": {"_target_": "sample_photos"}, "channels": "gray"}}, "data.channels"),
        ({"data": {"source": {"_target_": "photo_folder", "root": "p"}, "channels": "rgb"}}, "data.source"),
        (
            {"data": {"source": {"_target_": "sample_photos"}, "channels": "rgb", "val_crop": 96}},
            "data.val_crop",
        ),
        ({"protocol": {"color": "y"}}, "protocol"),
        ({"monitor": {"metric": "val/ssim", "direction": "max"}}, "monitor"),
        ({"trainer": {"limit_val_batches": 2}}, "trainer.limit_val_batches"),
    ],
)
def test_runs_of_different_problems_are_not_compared(
    tmp_path: Path, changed: dict[str, Any], key: str
) -> None:
    put(tmp_path, "0", val=28.0)
    put(tmp_path, "1", val=29.0, config=changed)
    with pytest.raises(ValueError, match=rf"were not trained and validated alike: {key} is"):
        best_run(tmp_path)


def test_tasks_are_not_compared_and_old_names_are_the_same_degradation(tmp_path: Path) -> None:
    old = {"degradation": {"_target_": "restora.degradations.gaussian_noise.GaussianNoise", "sigma": 25}}
    put(tmp_path, "0", val=28.0)
    put(tmp_path, "1", val=29.0, config=old)
    assert best_run(tmp_path).run == tmp_path / "1"
    put(tmp_path, "2", val=29.0, task="deblur")
    with pytest.raises(ValueError, match="task is deblur and denoise"):
        best_run(tmp_path)


def test_runs_that_were_validated_on_other_photos_are_not_compared(tmp_path: Path) -> None:
    put(tmp_path, "0", val=28.0, photos={"val": "a"})
    put(tmp_path, "1", val=29.0, photos={"val": "a", "train": "b"})
    put(tmp_path, "2", val=27.0)  # by an earlier version
    assert best_run(tmp_path).run.name == "1"
    put(tmp_path, "3", val=30.0, photos={"val": "c"})
    with pytest.raises(ValueError, match="the fingerprint of the validation photos is c and a"):
        best_run(tmp_path)
