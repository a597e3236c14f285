"""The share of a training that is done; learning rates and objectives depend on it."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

_ASKED_EVERY = 10
"""Batches between two synchronisations of the elapsed share of `max_time` over processes."""


def batches_before(trainer: Trainer) -> int:
    """Training batches before the current one, over all epochs."""
    return trainer.current_epoch * int(trainer.num_training_batches) + trainer.fit_loop.epoch_loop.batch_idx


def share_of_steps(trainer: Trainer) -> float:
    """The share of `max_steps` or `max_epochs` that is done, in [0,1], whichever is further."""
    shares = [0.0]
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if (trainer.max_epochs or -1) > 0:
        shares.append(batches_before(trainer) / ((trainer.max_epochs or 1) * trainer.num_training_batches))
    return min(max(shares), 1.0)


def share_of_time(trainer: Trainer) -> float | None:
    """The share of `max_time` that is over, by this process's clock; None without a limit."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
            elapsed = callback.time_elapsed()
            return min(elapsed / max(elapsed + left, 1e-9), 1.0)
    return None


def share_here(trainer: Trainer) -> float:
    """The share done by this process's clock, without communication."""
    return max(share_of_steps(trainer), share_of_time(trainer) or 0.0)


class Share:
    """The share done, the same on all processes: their clocks differ, their learning rates must not."""

    def __init__(self) -> None:
        self._said: tuple[int, float] | None = None
        """A batch, and the share of the time on the clock of process 0 at that batch."""

    def done(self, trainer: Trainer, device: torch.device) -> float:
        """In [0,1]: of `max_steps`, `max_epochs` or `max_time`, whichever is further."""
        time = share_of_time(trainer)
        if time is None:
            return share_of_steps(trainer)
        if trainer.world_size > 1:
            time = self._first_process_says(time, batches_before(trainer), device)
        return max(share_of_steps(trainer), time)

    def _first_process_says(self, value: float, batch: int, device: torch.device) -> float:
        """The value of process 0; broadcast only every few batches, as a broadcast synchronises."""
        if self._said is None or not 0 <= batch - self._said[0] < _ASKED_EVERY:
            shared = torch.tensor(value, dtype=torch.float64, device=device)
            torch.distributed.broadcast(shared, src=0)
            self._said = batch, float(shared)
        return self._said[1]
