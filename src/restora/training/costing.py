"""The duration of a run, extrapolated from a few steps: stages, validations, and a time limit."""

import statistics
import sys
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from restora import vocabulary
from restora.training.measuring import StageCost, Validation


@dataclass(frozen=True)
class Recipe:
    """The length of a run: optimiser steps, batches per step and batches between validations.

    `seconds` is its time limit, if any.
    """

    steps: int
    batches_per_step: int
    batches_per_validation: int | None
    seconds: float | None


@dataclass(frozen=True)
class Cost:
    """The measurements, in plain values, on one of `processes`.

    `hours` and `steps` (of the optimiser) are those of the whole recipe, `hours` including validation.
    """

    experiment: str
    machine: str
    processes: int
    stages: list[StageCost]
    validation: Validation | None
    steps: int
    hours: float
    validation_hours: float


def recipe_of(config: DictConfig) -> Recipe:
    """The length of a run from its configuration. Raises ValueError for a run without an end."""
    trainer = OmegaConf.to_container(config.trainer, resolve=True)
    assert isinstance(trainer, dict)
    per_epoch, per_step = int(config.data.steps_per_epoch), int(trainer["accumulate_grad_batches"])
    ends = [int(trainer["max_steps"]), (trainer["max_epochs"] or 0) * -(-per_epoch // per_step)]
    steps = min((end for end in ends if end > 0), default=-1)
    seconds = vocabulary.seconds(trainer["max_time"], "trainer.max_time")
    if steps <= 0 and seconds is None:
        raise ValueError(
            "nothing ends this run: set trainer.max_steps, trainer.max_epochs or trainer.max_time"
        )
    interval = trainer["val_check_interval"]
    if isinstance(interval, float):  # Lightning: a share of the epoch
        interval = max(int(interval * per_epoch), 1)
    if interval is not None:
        interval *= trainer["check_val_every_n_epoch"] or 1
    return Recipe(steps, per_step, interval, seconds)


def total(
    *,
    experiment: str,
    machine: str,
    processes: int,
    stages: list[StageCost],
    validation: Validation | None,
    recipe: Recipe,
) -> Cost:
    """The cost of the whole recipe: of all its steps, or of those that fit in its time limit."""
    batches = recipe.steps * recipe.batches_per_step if recipe.steps > 0 else sys.maxsize
    validating = 0.0
    if validation is not None and recipe.batches_per_validation is not None:
        validating = validation.photos * validation.seconds_per_photo / recipe.batches_per_validation
    starts = [stage.start_step * recipe.batches_per_step for stage in stages]
    done, spent = 0, 0.0
    for stage, start, end in zip(stages, starts, [*starts[1:], batches], strict=True):
        each = statistics.fmean(stage.seconds) + validating
        count = max(min(end, batches) - start, 0)
        if recipe.seconds is not None and spent + count * each >= recipe.seconds:  # its time ends here
            done, spent = done + int((recipe.seconds - spent) / each), recipe.seconds
            break
        done, spent = done + count, spent + count * each
    return Cost(
        experiment=experiment,
        machine=machine,
        processes=processes,
        stages=stages,
        validation=validation,
        steps=done // recipe.batches_per_step,
        hours=spent / 3600,
        validation_hours=done * validating / 3600,
    )
