"""run.json: strict JSON whatever was measured, and the history of a run that goes on."""

import csv
import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from omegaconf import OmegaConf
from queued_device import QueuedDevice
from run_folders import tiny_network

from restora.data.mixture import JointSource
from restora.data.module import PhotoData
from restora.data.real_pairs import SIDD
from restora.data.sources import Folder, PairedFolder
from restora.evaluation.protocol import Protocol
from restora.families.base import Family
from restora.losses.pixel import CharbonnierLoss
from restora.objectives.noise2noise import Noise2Noise
from restora.objectives.noise2void import Noise2Void
from restora.objectives.supervised import Supervised
from restora.training import run, tracking
from restora.training.metrics_csv import MetricsCsv
from restora.training.record import RunInfo, RunRecord, StepTimes, _reference
from restora.training.run import _say_outcome

CONFIG = {"name": "dncnn", "task": "denoise", "seed": 1, "network": {"_target_": "dncnn"}, "degradation": {}}


def info_in(folder: Path) -> RunInfo:
    return RunInfo(
        folder, CONFIG, command="", overrides=[], cwd="", experiment="", network_name="", sweep=None
    )


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


def test_seconds_of_training_do_not_count_what_was_before_it(tmp_path: Path) -> None:
    table = MetricsCsv(path=tmp_path / "metrics.csv")
    table.started -= 1000  # photos were packed
    module = Mock(spec=Family, network=tiny_network(), scorer=Mock(protocol=Protocol(color="rgb")))
    module.name = "residual_cnn"
    trainer = Mock(loggers=[table], datamodule=None)
    RunRecord(RunInfo(folder=tmp_path, config=CONFIG)).on_fit_start(trainer, module)
    table.log_metrics({"train/loss": 1.0}, step=0)
    (row,) = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert float(row["seconds"]) < 100


@pytest.mark.parametrize("photos", ["held-out photos", "validation photos"])
def test_a_result_worse_than_its_input_is_said_at_the_end(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(RunInfo(folder=tmp_path / "a [run]", config=CONFIG))
    row = {"name": "a", "psnr": 15.0, "ssim": 0.6, "input_psnr": 20.0, "input_ssim": 0.5, "seconds": 0.1}
    if photos == "held-out photos":
        record.take_test([row])
    else:
        record.data["metrics"]["best"] = {f"val/{key}": value for key, value in row.items()} | {"step": 5}
    _say_outcome(record)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"{photos} 20.00 -> 15.00 dB · ")
    assert "a [run]" in said
    assert said.endswith(
        "the result is worse than its input in PSNR (15.00 dB, the degraded photos 20.00 dB)"
    )


def test_figures_against_noisy_photos_are_called_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(RunInfo(folder=tmp_path, config=CONFIG))
    record.data["reference"] = "noisy"
    row = {"name": "a", "psnr": 15.0, "ssim": 0.6, "input_psnr": 20.0, "input_ssim": 0.5, "seconds": 0.1}
    record.take_test([row])
    _say_outcome(record)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(
        "held-out photos (against another noisy version of each photo, not against clean photos) 20.00 -> 15"
    )
    assert "worse" not in said


@pytest.mark.parametrize(
    ("source", "objective", "reference"),
    [
        ("own pairs", "noise2noise", "noisy"),
        ("own pairs", "supervised", "clean"),
        ("published pairs", "noise2noise", "clean"),
        ("mixture", "noise2noise", "noisy"),
        ("noisy photos", "noise2void", None),
    ],
)
def test_what_figures_compare_with_follows_from_photos_and_objectives(
    source: str, objective: str, reference: str | None
) -> None:
    own = PairedFolder(root="pairs", scale=1)
    published = SIDD(root="sidd")
    photos = {
        "own pairs": own,
        "published pairs": published,
        "mixture": JointSource({"a": published, "b": own}),
        "noisy photos": Folder(root="photos", holds="degraded"),
    }[source]
    data = Mock(spec=PhotoData, source=photos, has_clean=photos.holds == "clean")
    parts = {
        "supervised": Supervised(loss=CharbonnierLoss()),
        "noise2noise": Noise2Noise(),
        "noise2void": Noise2Void(),
    }
    module = Mock(objectives={objective: parts[objective]})
    assert _reference(Mock(datamodule=data), module) == reference


def test_a_result_better_than_its_input_needs_no_more_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(RunInfo(folder=tmp_path, config=CONFIG))
    record.data["metrics"]["best"] = {"val/psnr": 25.0, "val/input_psnr": 20.0}
    _say_outcome(record)
    assert "worse" not in capsys.readouterr().err


def test_a_run_that_is_killed_before_wandb_has_begun_goes_on_as_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B may take its time: run.json has the id before. A sweep's jobs do not take an agent's."""
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    begun: list[tuple[str, str | None]] = []

    def begin(mode: str, **arguments: Any) -> None:  # is killed here, so to speak
        begun.append((stored(tmp_path)["wandb"]["id"], arguments["resume"]))
        assert arguments["id"] == begun[-1][0]

    monkeypatch.setattr(tracking, "_init", begin)
    config = OmegaConf.create({**CONFIG, "logger": {"mode": "offline", "photos": 1}})
    for sweep in ({"id": "sweep", "job": 0, "overrides": []}, None):
        for _ in range(2):
            info = RunInfo(folder=tmp_path, config=CONFIG, sweep=sweep)
            sent = run._start_wandb(config, info, RunRecord(info))
            assert sent is not None
            sent.background.wait(5.0)
        (tmp_path / "run.json").unlink()
    first, again, *agents = begun
    assert (first[1], again) == (None, (first[0], "allow"))
    assert agents == [("agents", None), ("agents", "allow")]
    assert first[0] != "agents"


def test_the_time_of_a_step_on_a_gpu_is_the_device_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, steps, device = QueuedDevice(monkeypatch), StepTimes(), torch.device("cuda", 0)
    for _ in range(3):
        steps.begin(device)
        clock.queued += 20.0
        steps.end(device)
    assert steps.median() is None, "none has ended, and the host does not wait"
    clock.reached = 40.0
    assert steps.median() == 20.0
    assert len(steps.milliseconds) == 2


def test_the_time_of_a_step_on_a_cpu_is_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 1.5, 2.0, 2.1))
    monkeypatch.setattr("restora.training.instants.time.perf_counter", lambda: next(clock))
    steps = StepTimes()
    for _ in range(2):
        steps.begin(torch.device("cpu"))
        steps.end(torch.device("cpu"))
    assert steps.median() == 300.0


def test_the_mean_of_inputs_is_left_out_where_some_are_not_degraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be infinite, and every network worse than that. Where no photo is degraded, all are worse."""
    rows = [
        {"name": "a", "psnr": 50.0, "ssim": 0.99, "input_psnr": math.inf, "input_ssim": 1.0},
        {"name": "b", "psnr": 30.0, "ssim": 0.9, "input_psnr": 20.0, "input_ssim": 0.4},
    ]
    record = RunRecord(RunInfo(folder=tmp_path, config=CONFIG))
    record.take_test(rows)
    _say_outcome(record)
    said = capsys.readouterr().err
    assert "held-out photos 40.00 dB" in said
    assert "worse" not in said
    record.take_test(rows[:1])
    _say_outcome(record)
    said = capsys.readouterr().err
    assert "held-out photos inf -> 50.00 dB" in said
    assert "worse than its input" in said


@pytest.mark.parametrize(
    ("damaged", "lost"),
    [
        ({"cost": "x"}, ["cost"]),
        ({"cost": {"fit_seconds": None, "steps": 3, "samples": 4}}, ["cost"]),
        ({"metrics": 5, "changes": [1]}, ["metrics", "changes"]),
        (
            {"metrics": {"best": [1], "last": None}, "wandb": True, "photos": "x", "init": 1},
            ["metrics", "wandb"],
        ),
    ],
    ids=str,
)
def test_what_is_damaged_in_a_record_is_named_and_the_rest_of_its_history_kept(
    damaged: dict[str, Any], lost: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def record() -> RunRecord:
        info = RunInfo(
            tmp_path, CONFIG, command="", overrides=[], cwd="", experiment="", network_name="", sweep=None
        )
        return RunRecord(info)

    fresh = record()
    history = {
        "started": "2026-01-01",
        "cost": {"fit_seconds": 2.0, "steps": 3, "samples": 4, "step_ms": None},
    }
    (tmp_path / "run.json").write_text(json.dumps(history | damaged))
    found = RunRecord(info_in(tmp_path))
    assert found.data["started"] == "2026-01-01"
    assert found.fit_seconds_before == (0 if "cost" in damaged else 2.0)
    assert {key: found.data[key] for key in damaged} == {key: fresh.data[key] for key in damaged}
    assert all(key in caplog.text for key in lost)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5"])
def test_a_record_that_is_none_starts_a_new_history(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.json").write_text(text)
    assert RunRecord(info_in(tmp_path)).data["changes"] == []
    assert "run.json" in caplog.text


def test_the_cost_of_a_run_that_is_stopped_between_validations_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restora.training.record.share_here", lambda trainer: 0.5)
    record, trainer = RunRecord(info_in(tmp_path)), Mock(training=True)
    module = Mock(spec=Family, steps_done=lambda: 7, trainer=trainer)
    record.on_exception(trainer, module, KeyboardInterrupt())
    assert record.data["cost"]["steps"] == 0  # before the training
    record.info.begun = True
    record.samples = 28
    record.on_exception(trainer, module, KeyboardInterrupt())
    assert (record.data["cost"]["steps"], record.data["cost"]["samples"]) == (7, 28)
