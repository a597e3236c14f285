"""A callback for trainings that a test stops in the middle."""

import time
from typing import Any

from lightning.pytorch import Callback


class Pause(Callback):
    """Waits after every step."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *arguments: Any) -> None:
        time.sleep(self.seconds)
