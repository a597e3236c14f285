"""Callbacks that make a run safe to stop and its random numbers a function of the step."""

import errno
import logging
import math
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from PIL import Image
from rich.filesize import decimal
from torch import Tensor

from restora.files import sync
from restora.image import exact_products, to_bytes
from restora.keyed import sample_key
from restora.monitor import Direction, Monitor
from restora.photos.names import file_stem
from restora.registry import register
from restora.run_state import check_place
from restora.types import Batch

log = logging.getLogger(__name__)
_STEP_STREAM = 0x57E9
_SHOWN = (1, 3)
"""Numbers of channels that can be saved as a picture directly."""


@register("callback", "step_seed")
class StepSeed(Callback):
    """Seeds torch's global generator at every training step from (seed, step).

    Dropout, stochastic depth and other users of this generator then need no saved state: a resumed run draws
    the same numbers as an uninterrupted one. All processes draw the same numbers, for the whole batch
    (`processes.uniform`). The cost is a few microseconds per step.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int
    ) -> None:
        step = batches_done(trainer, batch_index) - 1
        seed = sample_key(_STEP_STREAM, self.seed, step, 0)
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # torch.manual_seed would record its call stack for a later CUDA initialisation: 0.4 ms
            torch.default_generator.manual_seed(seed)


class ExactProducts(Callback):
    """Multiplies float32 without TF32 during the training, for objectives that are `exact`."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._held.enter_context(exact_products())

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._held.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._held.close()


class Settling(Callback):
    """A callback that may lag behind the training, and can catch up before weights are saved."""

    def settle(self, trainer: Trainer, module: LightningModule) -> None:
        """Completes the pending work of all steps so far."""
        raise NotImplementedError


@register("callback", "last_checkpoint")
class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` up to date; the one before it is kept as `previous.ckpt`.

    It is written every `every_n_steps` batches of the run, in a run of one process also every `every_minutes`
    (for the first time after at most 45 s), after validation, and when stopped.

    Only complete gradient accumulations are saved, as partial gradients are not part of a checkpoint, and
    only finite weights. A batch that is followed by validation is saved after the validation, which Lightning
    would skip when resuming from a checkpoint before it.
    """

    def __init__(
        self, *, directory: str | Path, every_n_steps: int = 1000, every_minutes: float = 10.0
    ) -> None:
        if every_n_steps < 1 or not every_minutes >= 0:
            raise ValueError(
                "callbacks.last: every_n_steps must be at least 1 and every_minutes at least 0; got "
                f"{every_n_steps} and {every_minutes}"
            )
        self.path = Path(directory) / "last.ckpt"
        self.every_n_steps, self.every_seconds = every_n_steps, 60 * every_minutes
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None
        """The step of the newest checkpoint; None before there is one."""
        self.due = False

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _check_room(self.path.parent, module)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.saved_at = time.monotonic() - max(self.every_seconds - _FIRST_SECONDS, 0.0)
        self.saved_step = trainer.global_step or None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
    ) -> None:
        self.due = self.due or batches_done(trainer, batch_index) % self.every_n_steps == 0
        # clocks differ between processes, and saving is collective
        if trainer.world_size == 1:
            self.due = self.due or time.monotonic() - self.saved_at > self.every_seconds
        if self.due and whole_accumulation(trainer) and not validates_now(trainer):
            self._save(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit" and whole_accumulation(trainer):
            self._save(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save(trainer, module)

    def save_before_stop(self, trainer: Trainer, module: LightningModule) -> bool:
        """Saves after the current step; False if validation follows, after which it is saved instead."""
        if validates_now(trainer):
            return False
        self._save(trainer, module)
        return True

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Settling):
                callback.settle(trainer, module)
        if not is_finite(module):
            raise NonFinite(f"weights are no longer finite at step {trainer.global_step}", self)
        save_checkpoint(trainer, self.path, keep=self.path.with_name("previous.ckpt"))
        self.saved_at, self.saved_step, self.due = time.monotonic(), trainer.global_step, False


_FIRST_SECONDS = 45.0


def batches_done(trainer: Trainer, batch_index: int) -> int:
    """Batches of the run up to and including this one, over all epochs."""
    return trainer.current_epoch * int(trainer.num_training_batches) + batch_index + 1


def whole_accumulation(trainer: Trainer) -> bool:
    """Whether a gradient accumulation is complete: the optimiser has stepped on all batches so far."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    ready = progress.current.ready
    at_the_end = ready == trainer.num_training_batches or progress.is_last_batch
    return bool(at_the_end or ready % trainer.accumulate_grad_batches == 0)


def validates_now(trainer: Trainer) -> bool:
    """Whether this training batch is followed by validation."""
    epochs = trainer.check_val_every_n_epoch
    if epochs is not None and (trainer.current_epoch + 1) % epochs:
        return False
    batch = trainer.fit_loop.total_batch_idx if epochs is None else trainer.fit_loop.epoch_loop.batch_idx
    return bool((batch + 1) % (trainer.val_check_batch or 1) == 0)


def is_finite(module: LightningModule) -> bool:
    """Whether every weight and buffer is a finite number."""
    floats = [value for value in module.state_dict().values() if value.is_floating_point()]
    return all(bool(torch.isfinite(value).all()) for value in floats)


class DiskFull(ValueError):
    """There is no room for a file; the message names the file, its size and the free space."""


def save_checkpoint(trainer: Trainer, path: Path, *, keep: Path | None = None) -> None:
    """Writes a draft, syncs it to disk and renames it.

    So the previous checkpoint survives a kill or a full disk. It is renamed to `keep`, if given.
    """
    draft = path.with_suffix(".ckpt.tmp")
    check_place(path.parent.parent)
    try:
        trainer.save_checkpoint(draft, weights_only=False)
        if trainer.is_global_zero:
            sync(draft)
            if keep is not None and path.exists():
                path.replace(keep)
            draft.replace(path)
            sync(path.parent)
    except (OSError, RuntimeError) as error:  # torch's writer also raises RuntimeError
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "PytorchStreamWriter" not in str(error) and "iostream" not in str(error):
            raise
        written = draft.stat().st_size if draft.exists() else 0
        draft.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(
            f"no space for {path}: {decimal(written)} of it were written, {decimal(free)} are free without "
            f"them. The checkpoint before it is whole: make room and resume with resume={path.parent.parent}"
        ) from error
    finally:
        if trainer.is_global_zero:
            draft.unlink(missing_ok=True)


def _check_room(folder: Path, module: LightningModule) -> None:
    """Raises `DiskFull` if the checkpoints of a run do not fit: last, previous, best and a draft."""
    values = {id(value): value for value in module.state_dict().values()}.values()
    weights = sum(value.numel() * value.element_size() for value in values)
    trained = sum(
        value.numel() * value.element_size() for value in module.parameters() if value.requires_grad
    )
    needed = 4 * (weights + 2 * trained)  # Adam keeps two numbers per weight
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.glob("*.ckpt"))
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise DiskFull(
            f"no space for the checkpoints in {folder}: they need {decimal(needed)} (last, previous, "
            "best and "
            f"a draft), {decimal(free)} are free: make room, or set output_dir to another disk"
        )


class NonFinite(ValueError):
    """A run whose numbers are no longer finite; the message says where the last finite weights are.

    Without a `saver` it does not: no weights of the run are of use, or none are saved.
    """

    def __init__(self, what: str, saver: LastCheckpoint | None, advice: str = "") -> None:
        kept = "" if saver is None else "; there is no checkpoint yet"
        if saver is not None and saver.saved_step is not None:
            kept = f"; checkpoints/{saver.path.name} holds the finite weights of step {saver.saved_step}"
        advice = advice or (
            "Lower family.optimizer.lr or set trainer.gradient_clip_val (family.gradient_clip of a GAN)"
        )
        super().__init__(f"{what}. {advice}{kept}")


@register("callback", "save_test_images")
class SaveTestImages(Callback):
    """Writes the photos of the report: each held-out photo degraded, restored and clean as 8-bit PNG.

    The exact degraded input is written beside them as float32 `.npy` (H,W,C), neither clipped nor rounded, so
    that classical filters can be evaluated on the same numbers. Of a clip it is the middle frame. For photos
    of neither 1 nor 3 channels the pictures show the first channels, and there is no `.npy`.
    """

    def __init__(self, *, directory: str | Path, limit: int = 16) -> None:
        self.directory, self.limit = Path(directory), limit

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_index: int,
        dataloader_idx: int = 0,
    ) -> None:
        import numpy as np

        if batch_index >= self.limit:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(batch.names):
            stem = file_stem(name)
            photos = {"degraded": batch.middle, "restored": outputs["restored"], "clean": batch.clean}
            for kind, photo in photos.items():
                if photo is None:  # no clean photo in the data
                    continue
                to_image(photo[index]).save(self.directory / f"{stem}_{kind}.png")
            if batch.middle.shape[1] not in _SHOWN:
                log.info("%s has %d channels: its pictures show the first", name, batch.middle.shape[1])
                continue
            exact = batch.middle[index].permute(1, 2, 0).float().cpu().numpy()
            np.save(self.directory / f"{stem}_degraded.npy", exact)


def to_image(photo: Tensor) -> Image.Image:
    """(C,H,W) float on the [0,1] scale -> an 8-bit picture, clamped and rounded.

    Grey for one channel; of more than three channels it shows the first three, of two the first.
    """
    if photo.shape[0] not in _SHOWN:
        photo = photo[: 3 if photo.shape[0] > 3 else 1]
    pixels = to_bytes(photo.detach()).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@register("callback", "best_checkpoint")
class BestCheckpoint(Checkpoint):
    """Keeps `best.ckpt`, the weights with the best `monitor`.

    The best is the highest for `direction` max and the lowest for min. The validation after the last step
    counts too.

    Lightning's ModelCheckpoint saves only inside `fit`, but a run that ends by `max_time` is validated once
    more after it.
    """

    def __init__(
        self, *, directory: str | Path, monitor: str = "val/psnr", direction: Direction = "max"
    ) -> None:
        self.path = Path(directory) / "best.ckpt"
        self.monitor = Monitor(metric=monitor, direction=direction)
        self.best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        score = monitored(trainer, self.monitor)
        if not math.isnan(score) and self.monitor.better(score, self.best):
            self.best = score
            save_checkpoint(trainer, self.path)


def monitored(trainer: Trainer, monitor: Monitor) -> float:
    """The monitored figure of the last validation. Raises ValueError if it was not logged."""
    if monitor.metric not in trainer.callback_metrics:
        logged = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
        raise ValueError(
            f"monitor.metric={monitor.metric} is not among what validation logs: set one of "
            f"{', '.join(logged) or 'none, as these photos have no clean version and no metric needs none'}"
        )
    return float(trainer.callback_metrics[monitor.metric])
