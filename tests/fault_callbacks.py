"""Callbacks that make something go wrong in a run, named in its configuration by their dotted path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

EVENTS: dict[str, Callable[[], Any]] = {}


class AtStep(Callback):
    """Does `EVENTS[event]` after the given step."""

    def __init__(self, *, step: int, event: str) -> None:
        self.step, self.event = step, event

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            EVENTS[self.event]()


class Once(Callback):
    """Fails after the given step, unless `marker` says that it has."""

    def __init__(self, *, step: int, marker: str) -> None:
        self.step, self.marker = step, Path(marker)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            raise LookupError("a fault that does not come again")


class Poison(Callback):
    """Makes photos, loss or gradients of the given steps (counted from 0; none: all) not finite.

    In all processes, or in the one that `rank` names.
    """

    def __init__(
        self,
        *,
        what: str,
        steps: list[int] | None = None,
        value: float = float("nan"),
        rank: int | None = None,
    ) -> None:
        self.what, self.steps, self.value, self.rank = what, steps, value, rank

    def _now(self, what: str, trainer: Any, module: Any) -> bool:
        if self.what != what or self.rank not in (None, trainer.global_rank):
            return False
        return self.steps is None or module.steps_done() in self.steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        for what in ("degraded", "clean"):
            if self._now(what, trainer, module):
                getattr(batch, what).view(-1)[7] = self.value

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        if self._now("gradient", trainer, module):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            gradients[0][(0,) * gradients[0].ndim] = self.value

    def on_before_backward(self, trainer: Any, module: Any, loss: torch.Tensor) -> None:
        if self._now("loss", trainer, module):
            loss.data.fill_(self.value)
