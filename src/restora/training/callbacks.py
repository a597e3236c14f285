"""Callbacks that make a run safe to stop and its random numbers a function of the step."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image
from torch import Tensor

from restora.image import to_bytes
from restora.keyed import sample_key
from restora.monitor import Direction, Monitor
from restora.registry import register
from restora.types import Batch

_STEP_STREAM = 0x57E9


@register("callback", "step_seed")
class StepSeed(Callback):
    """Seeds torch's global generator at every training step from (seed, step, process).

    Dropout, stochastic depth and whatever else draws from it then needs no saved state: a resumed run draws
    what an uninterrupted one draws. The cost is a few microseconds a step.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int
    ) -> None:
        step = trainer.current_epoch * int(trainer.num_training_batches) + batch_index
        torch.manual_seed(sample_key(_STEP_STREAM, self.seed, step, trainer.global_rank))


@register("callback", "last_checkpoint")
class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` fresh: every `every_n_steps` batches or `every_minutes`, after validation, and when
    stopped.

    A batch that is followed by validation is saved after it, as Lightning would skip that validation when it
    goes on from before it.
    """

    def __init__(
        self, *, directory: str | Path, every_n_steps: int = 1000, every_minutes: float = 10.0
    ) -> None:
        self.path = Path(directory) / "last.ckpt"
        self.every_n_steps, self.every_seconds = every_n_steps, 60 * every_minutes
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
    ) -> None:
        due = (batch_index + 1) % self.every_n_steps == 0
        # clocks differ between processes, and saving is something they do together
        if trainer.world_size == 1:
            due = due or time.monotonic() - self.saved_at > self.every_seconds
        if due and not _validates_now(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:
            return
        _save_checkpoint(trainer, self.path)
        self.saved_at = time.monotonic()


def _save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Writes to a temporary file and renames it, so that a kill in the middle leaves the one before."""
    temporary = path.with_suffix(".ckpt.tmp")
    trainer.save_checkpoint(temporary, weights_only=False)
    if trainer.is_global_zero:
        temporary.replace(path)


def _validates_now(trainer: Trainer) -> bool:
    """Whether this training batch is followed by validation."""
    if trainer.check_val_every_n_epoch is None:
        return (trainer.fit_loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


@register("callback", "stop_on_non_finite_loss")
class StopOnNonFiniteLoss(Callback):
    """Ends a run whose loss is no longer a number, checking every `every_n_steps` batches, and says what to
    try."""

    def __init__(self, *, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
    ) -> None:
        if (batch_index + 1) % self.every_n_steps:
            return
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise ValueError(
                f"train/loss is {float(loss)} at step {trainer.global_step}. Lower family.optimizer.lr "
                "or set trainer.gradient_clip_val; checkpoints/last.ckpt holds earlier weights."
            )


@register("callback", "save_test_images")
class SaveTestImages(Callback):
    """Writes what the report shows: each held-out photo degraded, restored and clean as 8-bit PNG.

    The exact degraded input goes beside them as float32 `.npy` (H,W,C), neither clipped nor rounded, so that
    classical filters can be judged on the same numbers.
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
            stem = Path(name).stem
            photos = {"degraded": batch.degraded, "restored": outputs["restored"], "clean": batch.clean}
            for kind, photo in photos.items():
                if photo is None:  # nobody has the clean one
                    continue
                to_image(photo[index]).save(self.directory / f"{stem}_{kind}.png")
            exact = batch.degraded[index].permute(1, 2, 0).float().cpu().numpy()
            np.save(self.directory / f"{stem}_degraded.npy", exact)


def to_image(photo: Tensor) -> Image.Image:
    """(C,H,W) float on the [0,1] scale -> an 8-bit picture, clamped and rounded; grey where C is 1."""
    pixels = to_bytes(photo.detach()).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@register("callback", "best_checkpoint")
class BestCheckpoint(Checkpoint):
    """Keeps `best.ckpt`, the weights with the best `monitor`, the highest where `direction` is max and the
    lowest where it is min; also when they are evaluated once more after the last step.

    Lightning's ModelCheckpoint saves inside `fit` only, and a run that ends by `max_time` ends between two
    validations.
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
        if trainer.sanity_checking or trainer.fast_dev_run:
            return
        score = monitored(trainer, self.monitor)
        if self.monitor.better(score, self.best):
            self.best = score
            _save_checkpoint(trainer, self.path)


def monitored(trainer: Trainer, monitor: Monitor) -> float:
    """The monitored figure of the validation that has just ended. Raises ValueError where it has none."""
    if monitor.metric not in trainer.callback_metrics:
        logged = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
        raise ValueError(
            f"monitor.metric={monitor.metric} is not among what validation logs: set one of "
            f"{', '.join(logged) or 'none, as these photos have no clean version and no metric needs none'}"
        )
    return float(trainer.callback_metrics[monitor.metric])
