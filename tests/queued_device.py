"""A device that does later what the host queues on it, in the place of CUDA's events."""

import pytest
import torch


class QueuedDevice:
    """Its clock in milliseconds: when all that is queued will be done, and how far it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued = self.reached = 0.0
        device = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.queued

            def query(self) -> bool:
                return self.at <= device.reached

            def elapsed_time(self, later: "Event") -> float:
                assert later.query()
                return later.at - self.at

        monkeypatch.setattr(torch.cuda, "Event", Event)

    def catch_up(self) -> None:
        """What is queued is done."""
        self.reached = self.queued
