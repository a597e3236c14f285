"""Instants of a training, whose distances are its times.

On CUDA the host queues work that the device does later: the host's clock gives the time that it took to queue
a step. There an instant is an event of the device, read when the device has reached it.
"""

import time
from typing import Any

import torch

Instant = Any
"""A number of the host's clock in seconds, or an event of a device."""


def instant(device: torch.device) -> Instant:
    """Now; on CUDA, when the device has done the work that is queued so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: Instant, last: Instant) -> float | None:
    """None if the device has not reached the last instant."""
    if isinstance(first, float):
        return float(last - first)
    return float(first.elapsed_time(last)) / 1000 if last.query() else None
