"""What watches a run: when it saves, when it stops, what it writes, and what it seeds."""

import errno
import json
import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import OmegaConf
from PIL import Image
from ready_batches import ReadyBatches
from torch import Tensor, nn
from torch.utils.data import DataLoader

from restora.config import compose
from restora.families.base import Family
from restora.files import write_json
from restora.networks.dncnn import DnCNN
from restora.training.callbacks import (
    BestCheckpoint,
    DiskFull,
    ExactProducts,
    LastCheckpoint,
    NonFinite,
    SaveTestImages,
    StepSeed,
    validates_now,
)
from restora.training.record import RunInfo
from restora.training.run import train
from restora.training.schedules import Constant
from restora.types import Batch

UNVALIDATED = {"val_check_interval": 1000, "check_val_every_n_epoch": None}


def family(kind: type[Family] = Family, loss: nn.Module | None = None) -> Family:
    return kind(
        network=DnCNN(in_channels=3, depth=3, channels=4, batch_norm=False, bias=True),
        loss=loss or nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.01),
        schedule=Constant(),
    )


@pytest.mark.parametrize(("interval", "epochs"), [(0.5, 2), (1.0, 1), (3, None)])
def test_whether_validation_follows_is_known(
    fit: Callable, interval: float | int, epochs: int | None
) -> None:
    said, seen = [], []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
            if validates_now(trainer):
                said.append(trainer.global_step)

        def on_validation_end(self, trainer: Trainer, module: Any) -> None:
            seen.append(trainer.global_step)

    options = {"val_check_interval": interval, "check_val_every_n_epoch": epochs}
    fit(family(), steps=16, callbacks=[Watch()], **options)  # an epoch has 4
    assert said == seen
    assert seen


class Drawing(Family):
    """Draws from torch's global generator in each step, as dropout does, and remembers what came."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        torch.rand(self.more)
        return super().training_step(batch, batch_index)


def draws(fit: Callable[..., Trainer], *, seed: int, more: int = 0, steps: int = 6) -> list[float]:
    drawing = family(Drawing)
    drawing.drawn, drawing.more = [], more
    fit(drawing, steps=steps, callbacks=[StepSeed(seed=seed)], **UNVALIDATED)
    return drawing.drawn


def test_what_a_step_draws_depends_on_its_number_and_the_seed_alone(fit: Callable[..., Trainer]) -> None:
    """Six steps are an epoch of four and half of another."""
    first = draws(fit, seed=3)
    assert len(set(first)) == 6
    assert draws(fit, seed=3, more=5) == first
    assert not set(draws(fit, seed=4)) & set(first)


@pytest.mark.parametrize("fails", [False, True])
def test_products_are_exact_during_a_training_and_as_before_after_it(
    fit: Callable[..., Trainer], fails: bool
) -> None:
    seen: list[str] = []

    class Watch(Callback):
        def on_after_backward(self, *_: Any) -> None:
            seen.append(torch.backends.cudnn.conv.fp32_precision)
            if fails:
                raise LookupError

    before = torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(LookupError) if fails else nullcontext():
        fit(family(), steps=1, callbacks=[ExactProducts(), Watch()], **UNVALIDATED)
    assert seen == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before != "ieee"


class Clock:
    """Stands for the module `time`: it is `step` seconds later each time a batch begins."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        return self.now


class SavedAfter(Callback):
    """Notes after which batches a file was there, and removes it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock, self.steps = path, clock, list[int]()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_index: int) -> None:
        if self.path.exists():
            self.steps.append(trainer.global_step)
            self.path.unlink()
        self.clock.now += self.clock.step


@pytest.mark.parametrize(
    ("every", "saved"),
    [
        ({"every_minutes": 1, "every_n_steps": 1000}, [2, 5, 8]),
        ({"every_minutes": 2, "every_n_steps": 1000}, [2, 7]),
        ({"every_minutes": 1000, "every_n_steps": 5}, [2, 5, 10]),  # an epoch has four batches
    ],
    ids=str,
)
def test_the_last_checkpoint_is_written_by_the_clock_and_by_the_step(
    every: dict[str, Any], saved: list[int], fit: Callable[..., Trainer], tmp_path: Path, monkeypatch
) -> None:
    """A batch takes 30 seconds here; whatever is more than `every_minutes` old is written anew."""
    clock = Clock(30)
    monkeypatch.setattr("restora.training.callbacks.time", clock)
    last = LastCheckpoint(directory=tmp_path / "checkpoints", **every)
    watch = SavedAfter(last.path, clock)
    fit(family(), steps=11, callbacks=[last, watch], enable_checkpointing=True, **UNVALIDATED)
    assert watch.steps == saved
    assert last.path.exists(), "the end of a training is kept too"


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_one_before(
    fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `run.json` likewise: what a machine that loses its power leaves is the old file or the new one."""
    events: list[tuple[str, str]] = []
    flush, rename = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append(("fsync", Path(f"/proc/self/fd/{handle}").resolve().name))
        flush(handle)

    def replace(path: Path, target: Path) -> Path:
        events.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    last = LastCheckpoint(directory=tmp_path / "checkpoints", every_n_steps=2)
    fit(family(), steps=4, callbacks=[last], enable_checkpointing=True, **UNVALIDATED)
    write_json(tmp_path / "run.json", {})
    *_, (_, draft) = events
    assert events[-6:] == [
        ("fsync", "last.ckpt.tmp"),
        ("rename", "last.ckpt"),
        ("rename", "last.ckpt.tmp"),
        ("fsync", "checkpoints"),
        ("fsync", draft),
        ("rename", draft),
    ]
    assert (tmp_path / "checkpoints" / "previous.ckpt").exists()


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
def test_a_full_disk_is_named_with_sizes_and_costs_no_checkpoint(
    reason: int, fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = LastCheckpoint(directory=tmp_path, every_n_steps=2)
    save = Trainer.save_checkpoint

    def full(trainer: Trainer, path: Path, **options: Any) -> None:
        if trainer.global_step < 4:
            return save(trainer, path, **options)
        path.write_bytes(bytes(3_000_000))
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(
        DiskFull, match=r"no space for .*/last\.ckpt: 3\.0 MB of it were written, .* are free"
    ):
        fit(family(), steps=6, callbacks=[last], enable_checkpointing=True, **UNVALIDATED)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2

    monkeypatch.setattr("restora.training.callbacks.shutil.disk_usage", lambda _: Namespace(free=1000))
    last.path.unlink()
    with pytest.raises(
        DiskFull, match=r"they need .* \(last, previous, best and a draft\), 1\.0 kB are free"
    ):
        fit(family(), steps=1, callbacks=[last], enable_checkpointing=True, **UNVALIDATED)


class OneByOne(ReadyBatches):
    """Four photos, one in a batch, as held-out photos come."""

    def test_dataloader(self) -> DataLoader:
        photos = torch.rand(4, 2, 1, 3, 12, 16)
        batches = [
            {"clean": clean, "degraded": degraded, "condition": None, "names": [f"{number}"]}
            for number, (clean, degraded) in enumerate(photos)
        ]
        return DataLoader(batches, batch_size=None)


def test_only_so_many_held_out_photos_are_saved(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[SaveTestImages(directory=folder, limit=3)],
    )
    model = family()
    trainer.test(model, OneByOne(), verbose=False)
    assert len(model.scores) == 4
    kinds = ("clean.png", "degraded.npy", "degraded.png", "restored.png")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{i}_{kind}" for i in range(3) for kind in kinds
    ]
    assert Image.open(folder / "2_restored.png").size == (16, 12)
    exact = np.load(folder / "2_degraded.npy")
    assert exact.dtype == np.float32
    rounded = np.round(exact * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "2_degraded.png")), rounded)


class AtTheStart(Callback):
    """What a run has written and said when its first step begins."""

    def __init__(self, folder: Path, said: Callable[[], str]) -> None:
        self.folder, self.said = folder, said
        self.validated = 0

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self.validated += trainer.sanity_checking

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.record = json.loads((self.folder / "run.json").read_text())
        self.files = [path.name for path in self.folder.rglob("*") if path.suffix in (".ckpt", ".png")]
        self.text = self.said()
        self.csv = self.folder / "metrics.csv"
        self.rows = self.csv.read_text() if self.csv.exists() else ""


def test_validating_before_the_first_step_leaves_no_trace(
    tmp_path: Path, shared_data_dir: Path, monkeypatch, capfd
) -> None:
    """Lightning's sanity check validates a network that has not learnt: nothing of it is a result."""
    from restora.training import run

    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    watch = AtTheStart(tmp_path, lambda: capfd.readouterr().err)
    build_callbacks = run.build_callbacks
    monkeypatch.setattr(run, "build_callbacks", lambda *words: [*build_callbacks(*words), watch])
    config = compose("train", ["network=dncnn_small", "network.in_channels=3", "debug=fast", "name=test"])
    OmegaConf.set_struct(config, False)
    config.run_dir, config.trainer.num_sanity_val_steps = str(tmp_path), 2
    train(config, RunInfo(folder=tmp_path, config=OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
    assert watch.validated == 1, "there was no sanity check"
    assert watch.record["metrics"] == {"best": None, "last": None}
    assert watch.files == []
    assert "val/" not in watch.rows
    assert " dB" not in watch.text
    best = json.loads((tmp_path / "run.json").read_text())["metrics"]["best"]
    assert best["step"] == 3


class Validated:
    """A trainer that has just validated and writes the figure as its checkpoint."""

    sanity_checking = fast_dev_run = False
    is_global_zero = True

    def __init__(self, **logged: float) -> None:
        self.callback_metrics = {f"val/{name}": value for name, value in logged.items()}

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        Path(path).write_text(json.dumps(self.callback_metrics))


@pytest.mark.parametrize(("direction", "kept"), [("max", 31.0), ("min", 29.0)])
def test_the_best_checkpoint_is_the_one_that_the_monitor_prefers(
    tmp_path: Path, direction: str, kept: float
) -> None:
    best = BestCheckpoint(directory=tmp_path, monitor="val/figure", direction=direction)
    for figure in (float("nan"), 30.0, 31.0, 29.0, float("nan"), 30.5):
        best.on_validation_end(Validated(figure=figure), None)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "best.ckpt").read_text()) == {"val/figure": kept}


def test_a_monitor_that_validation_does_not_log_is_named(tmp_path: Path) -> None:
    best = BestCheckpoint(directory=tmp_path, monitor="val/lpips")
    with pytest.raises(
        ValueError, match=r"monitor\.metric=val/lpips is not .*: set one of val/psnr, val/ssim"
    ):
        best.on_validation_end(Validated(psnr=1.0, ssim=1.0), None)  # type: ignore[arg-type]


def test_photos_without_a_clean_version_are_restored_and_not_compared(tmp_path: Path) -> None:
    module = family()
    batch = Batch(None, torch.rand(1, 3, 16, 16), None, ["a"])
    module.on_test_epoch_start()
    with torch.no_grad():
        answer = module.test_step(batch, 0)
    SaveTestImages(directory=tmp_path).on_test_batch_end(None, module, answer, batch, 0)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_degraded.npy",
        "a_degraded.png",
        "a_restored.png",
    ]
    assert "psnr" not in module.rows[0]


def test_where_finite_weights_are_is_only_said_where_it_is_known(tmp_path: Path) -> None:
    """Weights that never gave a finite validation are of no use, also if their numbers are finite."""
    last = LastCheckpoint(directory=tmp_path)
    assert "checkpoint" not in str(NonFinite("validation never gave a finite score", None))
    assert str(NonFinite("x", last)).endswith("there is no checkpoint yet")
    last.saved_step = 7
    assert str(NonFinite("x", last)).endswith("checkpoints/last.ckpt holds the finite weights of step 7")
