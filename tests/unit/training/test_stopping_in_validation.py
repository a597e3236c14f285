"""A signal during a long validation ends it between photos, but not after the last: the weights are saved."""

import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from restora.training import stopping


def test_a_late_validation_ends_between_photos_and_not_after_the_last() -> None:
    stop = stopping.StopAtSignal()
    stop.signum, stop.asked_at = signal.SIGTERM, time.monotonic() - 2 * stopping._PATIENCE_SECONDS
    trainer: Any = SimpleNamespace(world_size=1, num_val_batches=[3])
    with pytest.raises(stopping.Stopped):
        stop.on_validation_batch_end(trainer, None, None, None, 1, 0)  # type: ignore[arg-type]
    stop.on_validation_batch_end(trainer, None, None, None, 2, 0)  # type: ignore[arg-type]
