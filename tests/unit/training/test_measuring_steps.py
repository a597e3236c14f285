"""What `restora bench` measures of a step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from queued_device import QueuedDevice

from restora.training.measuring import StepMeter


def test_batches_on_a_gpu_take_the_time_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has queued all of them before the first has ended, and waits for the last."""
    clock = QueuedDevice(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", clock.catch_up)
    meter = StepMeter(warm_up=1, total=3, divided=False, progress=lambda *_: None)
    strategy = SimpleNamespace(root_device=torch.device("cuda", 0))
    trainer: Any = SimpleNamespace(strategy=strategy, optimizers=[])
    meter.on_train_start(trainer, trainer)
    for index, milliseconds in enumerate((100.0, 20.0, 30.0)):
        clock.queued += milliseconds
        meter.on_train_batch_end(trainer, trainer, None, None, index)
    assert meter.seconds() == [0.02, 0.03]
