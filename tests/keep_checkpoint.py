"""A callback for tests: keeps the checkpoint of a step, as a kill at that step would leave it."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class KeepAt(Callback):
    """Copies `last.ckpt`, which is written after every batch, once the batch `step` is done."""

    def __init__(self, *, step: int, directory: str) -> None:
        self.step, self.directory = step, Path(directory)

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int
    ) -> None:
        if module.steps_done() == self.step:
            shutil.copy(self.directory / "last.ckpt", self.directory / "kept.ckpt")
