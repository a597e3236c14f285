"""W&B that answers nonsense, nothing, or dies in mid-run costs the training nothing; what it did not take is
sent later."""

import csv
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from fault_callbacks import EVENTS
from tiny_runs import DNCNN, TINY
from wandb_server import WandbServer

from restora.cli import main
from restora.training import tracking
from restora.training.background import end_service

QUICK = [
    *DNCNN,
    *TINY,
    "data.batch_size=2",
    "data.steps_per_epoch=12",
    "trainer.max_steps=12",
    "trainer.val_check_interval=12",
    "logger.mode=online",
    "callbacks.best=null",
    "logger.photos=0",  # tables and checkpoints are artifacts, which the server of the tests has not
    "+callbacks.fault._target_=fault_callbacks.AtStep",
    "+callbacks.fault.step=4",
    "+callbacks.fault.event=now",
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data_dir: Path) -> Iterator[WandbServer]:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 4.0)
    monkeypatch.chdir(tmp_path)
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running
        end_service()


def trained(folder: Path, event: Callable[[], Any], *words: str) -> dict[str, Any]:
    EVENTS["now"] = event
    assert main(["train", *QUICK, *words, f"hydra.run.dir={folder}"]) == 0
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["test"]["psnr"] > 0
    with (folder / "metrics.csv").open() as table:
        assert {row["step"] for row in csv.DictReader(table) if row["train/loss"]} == set(map(str, range(12)))
    return dict(record)


def core_process() -> int:
    from wandb.sdk import wandb_setup

    return int(wandb_setup._singleton._connection._proc._process.pid)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["well", "hang", "killed"])
def test_a_run_ends_well_whatever_becomes_of_wandb_and_is_sent_later(
    mode: str,
    server: WandbServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "catboost.py").write_text('"""One of the modules whose import W&B reports."""')

    def event() -> None:
        if mode == "killed":
            os.kill(core_process(), 9)
            time.sleep(1.0)
            importlib.import_module("catboost")  # after W&B has lost its process
            monkeypatch.delitem(sys.modules, "catboost")
        else:
            server.mode = mode

    started = time.monotonic()
    record = trained(tmp_path / "run", event)
    assert time.monotonic() - started < 45
    assert record["wandb"]["mode"] == "online"
    assert record["wandb"]["complete"] == (mode == "well")
    if mode == "well":
        assert len(server.history[record["wandb"]["id"]]) > 12
        return
    said = [line for line in "".join(capfd.readouterr()).splitlines() if "W&B: " in line]
    assert len(said) == 1, said
    assert f"restora sync {tmp_path / 'run'}" in said[0]
    if mode == "hang":
        server.mode = "well"
        assert main(["sync", str(tmp_path)]) == 0
        assert len(server.history[record["wandb"]["id"]]) > 3
        assert main(["sync", str(tmp_path)]) == 0, "nothing is left to send"


def test_all_offline_runs_of_a_tree_are_sent_and_a_sync_goes_on(
    server: WandbServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        run = wandb.init(mode="offline", dir=str(tmp_path / "sweep" / str(number)), id=f"run{number}")
        run.log({"a": 1})
        run.finish()
    server.mode = "close"
    assert main(["sync", str(tmp_path), "--timeout", "4"]) == 2
    assert "2 of 2 W&B runs could not be sent" in capfd.readouterr().err
    server.mode = "well"
    assert main(["sync", str(tmp_path)]) == 0
    assert capfd.readouterr().out.count("sent") == 2
    assert server.history.keys() == {"run1", "run2"}
    assert main(["sync", str(tmp_path)]) == 0
    assert "nothing to send" in capfd.readouterr().out
