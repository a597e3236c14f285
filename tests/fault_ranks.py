"""A callback that ends one process of a distributed run in the middle of its training."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback


class AtRank(Callback):
    """After `step` steps, process `rank` raises an error of its own or kills itself."""

    def __init__(self, *, rank: int, step: int, event: str) -> None:
        self.rank, self.step, self.event = rank, step, event

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if (trainer.global_rank, trainer.global_step) != (self.rank, self.step):
            return
        if self.event == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise LookupError("this process has a fault of its own")
