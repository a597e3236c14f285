"""Callbacks that make something go wrong in a run, named in its configuration by their dotted path."""

from collections.abc import Callable
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


class Poison(Callback):
    """Makes photos, loss or gradients of the given steps (counted from 0; none: all) not finite."""

    def __init__(self, *, what: str, steps: list[int] | None = None, value: float = float("nan")) -> None:
        self.what, self.steps, self.value = what, steps, value

    def _now(self, trainer: Any) -> bool:
        return self.steps is None or trainer.global_step in self.steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        if self.what in ("degraded", "clean") and self._now(trainer):
            getattr(batch, self.what).view(-1)[7] = self.value

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        if self.what == "gradient" and self._now(trainer):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            gradients[-1].view(-1)[0] = self.value

    def on_before_backward(self, trainer: Any, module: Any, loss: torch.Tensor) -> None:
        if self.what == "loss" and self._now(trainer):
            loss.data.fill_(self.value)
