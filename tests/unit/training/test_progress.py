"""Percent, step, figure and time left are seen at 80 columns, whatever a run is called."""

import io
import re
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Timer
from omegaconf import OmegaConf
from rich.cells import cell_len
from rich.console import Console

from restora.families.base import Family
from restora.monitor import Monitor, direction_of
from restora.training import progress
from restora.training.progress import TrainingProgress, cut, fitted
from restora.training.run import quieten

NAMES = [
    "dncnn (dncnn_small)",
    "lr=0.001 seed=2 depth=17 channels=64 patch=96 loss=charbonnier schedule=multi_step batch=128 [wide]",
    "照片修复网络" * 12,
    "a",
]
FACTS = {
    "share": "  7%",
    "step": "step 123456",
    "loss": "loss 0.000123",
    "score": "28.31 dB",
    "left": "101:23:45 left",
}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def trained(
    name: str,
    screen: io.StringIO,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    begun_at: int = 0,
    share_before: int = 0,
    callbacks: Sequence[Any] = (),
    monitor: str = "val/psnr",
    after: float | None = None,
    **options: Any,
) -> str:
    """What a run of 100,000 steps shows after 7 % of it and a validation.

    With `after`, it ends some steps after that validation, and another one has this figure.
    """
    console = Console(file=screen, width=width, height=25, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    module: Any = Family.__new__(Family)
    module.__dict__.update(steps_done=lambda: begun_at)
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        world_size=1,
        sanity_checking=False,
        global_step=share_before,
        max_steps=100,
        max_epochs=None,
        state=SimpleNamespace(fn="fit"),
        callbacks=callbacks,
        callback_metrics={"train/loss": 0.000123, "val/psnr": 28.314, "val/loss": 0.25},
    )
    watched = Monitor(metric=monitor, direction=direction_of(monitor))
    shown = TrainingProgress(label=name, job=12, jobs=120, monitor=watched, **options)
    shown.on_train_start(trainer, module)
    module.__dict__.update(steps_done=lambda: 123456)
    trainer.global_step = 7
    shown.fit_started -= 27_000
    shown.on_validation_end(trainer, module)
    if after is not None:
        module.__dict__.update(steps_done=lambda: 123460)
    shown.on_train_end(trainer, module)
    trainer.state.fn = "validate"
    if after is not None:
        trainer.callback_metrics["val/psnr"] = after
        shown.on_validation_end(trainer, module)
    return screen.getvalue()


@pytest.mark.parametrize("name", NAMES, ids=["usual", "long", "wide letters", "short"])
@pytest.mark.parametrize("width", [80, 60, 140])
@pytest.mark.parametrize("kind", ["terminal", "pipe", "dumb terminal"])
def test_all_figures_are_seen_in_one_line(
    kind: str, width: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb" if kind == "dumb terminal" else "xterm-256color")
    screen = io.StringIO() if kind == "pipe" else Screen()
    output = trained(name, screen, width, monkeypatch)
    if kind == "terminal":
        assert "\x1b[" in output  # it moves the cursor
    else:
        assert "\x1b[" not in output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", plain)
    lines = [line for line in plain.splitlines() if line.strip()]
    assert all(cell_len(line) <= width for line in lines), lines
    drawn = next(line for line in lines if "left" in line)
    for fact in ("7%", "step 123456", "28.31 dB", "run 12 of 120" if width >= 80 else "run"):
        assert fact in drawn
    assert re.search(r"99:38:\d\d left", drawn)
    assert re.search(r"123456 steps in 7:30:\d\d · best validation 28.31 dB", plain)


def test_a_resumed_run_says_what_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    shown = trained("a", screen, 100, monkeypatch, begun_at=123000, best_before=lambda: 29.0)
    assert re.search(r"123456 steps, 456 of them in 7:30:\d\d · best validation 29.00 dB", shown)


@pytest.mark.parametrize(("after", "best"), [(29.5, "29.50"), (27.0, "28.31")])
def test_the_last_line_knows_the_validation_after_the_last_step(
    after: float, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = trained("a", io.StringIO(), 100, monkeypatch, after=after)
    assert re.findall(r"· (\d+) steps in .* · best validation ([\d.]+) dB", shown) == [("123460", best)]


@pytest.mark.parametrize(("before", "left"), [(0, r"99:38:\d\d"), (4, r"232:30:\d\d")])
def test_the_first_line_estimates_by_all_that_was_done_since_the_start(
    before: int, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a resumed run: 4 % were done before, 3 % took 7.5 hours."""
    shown = trained("a", io.StringIO(), 100, monkeypatch, share_before=before)
    assert re.search(rf" {left} left", shown)


@pytest.mark.parametrize(("seconds", "left"), [(60.0, "1:00"), (1e6, r"99:38:\d\d")])
def test_the_end_is_the_first_of_steps_and_time(
    seconds: float, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = Timer(duration=timedelta(days=30))
    monkeypatch.setattr(timer, "time_remaining", lambda: seconds)
    shown = trained("a", io.StringIO(), 100, monkeypatch, callbacks=[timer])
    assert re.search(rf" {left} left", shown)


def test_the_losses_of_training_and_validation_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = trained("a", io.StringIO(), 100, monkeypatch, monitor="val/loss")
    assert "loss 0.000123 · val/loss 0.2500" in shown


def test_a_long_name_gives_way_before_a_figure() -> None:
    name, state = fitted("a name of some length that goes on", FACTS, 77)
    assert state == "  7% · step 123456 · loss 0.000123 · 28.31 dB · 101:23:45 left"
    assert name == "a name of som…"
    assert "loss" not in fitted("a name of some length that goes on", FACTS, 70)[1]
    assert fitted("dncnn", FACTS, 80)[0] == "dncnn"


def test_what_is_cut_says_so() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
    assert cell_len(cut("照片修复网络", 6)) <= 6
    assert cut("abc", 1) == ""


def test_lightnings_hint_about_slurm_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the login node of a cluster, where srun is on the path."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        SLURMEnvironment.detect()
        assert "srun" in str(heard[0].message)
        quieten(OmegaConf.create({"threads": None}))
        SLURMEnvironment.detect()
    assert len(heard) == 1
