"""Runs a fit, with progress, cancelling, a time limit, early stopping, and a fallback if it diverges."""

import copy
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from restora import registry
from restora.artifact.restorer import pick_device
from restora.fitting.base import Fit, Problem, Step
from restora.fitting.stopping import EarlyStop

Ended = Literal["finished", "early stop", "max_time", "not finite", "stopped"]


@dataclass(frozen=True)
class Progress:
    """The state after a step; `left` is the seconds left at the pace so far, at most the time limit's."""

    step: int
    of: int
    loss: float
    seconds: float
    left: float


@dataclass(frozen=True)
class Outcome:
    """The result of a fit.

    `picture` (1,C,H,W), float32 in [0,1] on the CPU, is that of step `step`, the last of `steps` or,
    stopped early, the one where the outputs varied least. `of` is the number of steps that were to be taken.
    """

    picture: Tensor
    step: int
    steps: int
    of: int
    seconds: float
    ended: Ended

    @property
    def cut_short(self) -> str:
        """What ended the fit before the method itself did, in words for the user; empty if nothing did."""
        after = f"after {self.steps:,} of {self.of:,} step{'s' * (self.of != 1)}"
        if self.ended == "max_time":
            return f"stopped by the time limit {after}"
        if self.ended == "stopped":
            return f"stopped {after}"
        if self.ended == "not finite":
            return f"stopped {after}, as the next was not finite: lower learning_rate for more"
        return ""


class Cancelled(Exception):
    """The user cancelled the fit."""


def run(
    fit: Fit,
    problem: Problem,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    max_time: float | None = None,
    early_stop: bool | EarlyStop | None = None,
    on_step: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    enough: Callable[[], bool] | None = None,
) -> Outcome:
    """The restored photo.

    After `max_time` seconds, or as soon as `enough()` is true, and at least one step, the picture so far is
    the result. `early_stop` None is
    the method's own choice. If a loss or picture is not finite, the last finite picture is the result. Raises
    ValueError for a problem that the method cannot solve, and `Cancelled`.
    """
    _check_run(seed, max_time, on_step=on_step, cancelled=cancelled, enough=enough)
    stop = _stopping(fit, early_stop)
    started = time.monotonic()
    last: Step | None = None
    ended: Ended = "finished"
    for step in _steps(fit, problem, seed, device):
        if cancelled is not None and cancelled():
            raise Cancelled
        if not _finite(step):
            ended = "not finite"
            break
        last = step
        seconds = time.monotonic() - started
        if on_step is not None:
            left = seconds / step.number * (step.of - step.number)
            left = left if max_time is None else max(0.0, min(left, max_time - seconds))
            on_step(Progress(step.number, step.of, step.loss, seconds, left))
        watched = step.picture if step.output is None else step.output
        if stop is not None and stop(step.number, watched, step.picture):
            ended = "early stop"
            break
        if max_time is not None and seconds >= max_time and step.number < step.of:
            ended = "max_time"
            break
        if enough is not None and step.number < step.of and enough():
            ended = "stopped"
            break
    if last is None:
        raise ValueError(
            f"{fit.name} produced no finite photo: check that the values of its input are finite"
        )
    best = last.picture if ended != "early stop" or stop is None else stop.picture
    assert best is not None
    number = stop.step if ended == "early stop" and stop is not None else last.number
    picture = best.detach().float().clamp(0, 1).cpu()
    return Outcome(picture, number, last.number, last.of, time.monotonic() - started, ended)


def _steps(fit: Fit, problem: Problem, seed: int, device: torch.device | str) -> Iterator[Step]:
    """The steps, computed with gradients in any surroundings, which are the caller's between the steps."""
    with torch.inference_mode(False), torch.enable_grad():
        problem = _with_gradients(problem)
        steps = iter(fit(problem, seed=seed, device=pick_device(str(device))))
    with closing(steps) if isinstance(steps, Generator) else nullcontext():
        while True:
            with torch.inference_mode(False), torch.enable_grad():
                step = next(steps, None)
            if step is None:
                return
            yield step


def _with_gradients(problem: Problem) -> Problem:
    """The problem with tensors that take part in a backward pass; those of inference mode do not."""
    operator = copy.copy(problem.operator)
    for key, value in vars(operator).items():
        if isinstance(value, Tensor) and value.is_inference():
            setattr(operator, key, value.clone())
    degraded = problem.degraded.clone() if problem.degraded.is_inference() else problem.degraded
    return replace(problem, degraded=degraded, operator=operator)


def _stopping(fit: Fit, early_stop: bool | EarlyStop | None) -> EarlyStop | None:
    """The early stopping of a run, unused so far."""
    if isinstance(early_stop, EarlyStop):
        return EarlyStop(window=early_stop.window, patience=early_stop.patience)
    if early_stop not in (None, True, False):
        raise ValueError(f"early_stop must be true, false, an EarlyStop or None, got {early_stop!r}")
    return EarlyStop() if early_stop or (early_stop is None and fit.stops_early) else None


def _check_run(seed: int, max_time: float | None, **functions: Callable[..., Any] | None) -> None:
    """Raises ValueError for the first argument of `run` that is not of its kind."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be a whole number of at most 64 bits, got {seed!r}")
    if max_time is not None and not (isinstance(max_time, Real) and max_time > 0):
        raise ValueError(f"max_time must be a number of seconds above 0, or None, got {max_time!r}")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ValueError(f"{name} must be a function, or None, got {function!r}")


def fit(name: str, problem: Problem, *, seed: int = 0, device: str = "cpu", **settings: Any) -> Outcome:
    """The restored photo by the method `name` with arguments of its constructor.

    `max_time` in seconds, `early_stop`, `on_step`, `cancelled` and `enough` are those of `run`.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"expected a Problem, got {type(problem).__name__}: give Problem(photo)")
    of_run = {key: settings.pop(key) for key in _OF_RUN if key in settings}
    made: Fit = registry.build({"_target_": name, **settings}, "method", foreign=True)
    return run(made, problem, seed=seed, device=device, **of_run)


_OF_RUN = ("max_time", "early_stop", "on_step", "cancelled", "enough")


def _finite(step: Step) -> bool:
    return step.loss == step.loss and abs(step.loss) != float("inf") and bool(step.picture.isfinite().all())
