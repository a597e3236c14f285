"""How a batch size other than the recipe's changes learning rates and steps.

With a batch of k times the recipe's, over all processes and accumulated batches, a learning rate is
multiplied by k for SGD (Goyal et al., "Accurate, Large Minibatch SGD", 2017) and by the square root of k for
Adam and its kin (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS
2022), and the steps are divided by k, so that as many crops are seen. Values that the user sets are kept.
"""

import math
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

BATCH = ("data.batch_size", "trainer.accumulate_grad_batches")
"""Keys whose product is the batch of a step."""


def keys_of(overrides: Iterable[str]) -> set[str]:
    """The keys that overrides set."""
    return {word.lstrip("+~").partition("=")[0] for word in overrides}


def batch_of(config: DictConfig) -> int:
    """Crops that make one step."""
    return int(config.data.batch_size) * int(config.trainer.accumulate_grad_batches)


def is_asked(config: DictConfig, typed: set[str]) -> bool:
    """Whether the command line sets the batch of an experiment, so that its own batch has to be looked up."""
    asked = config.get("recipe_batch") == "auto" and "experiments" in typed and typed.intersection(BATCH)
    return bool(asked) and _is_plain(config)


def _is_plain(config: DictConfig) -> bool:
    """Whether the whole run has one batch size; with stages each stage has its own."""
    numbers = [OmegaConf.select(config, key) for key in BATCH]
    return all(type(number) is int and number > 0 for number in numbers) and not config.data.get("stages")


def rescale(config: DictConfig, typed: set[str]) -> None:
    """Fits learning rates and steps to the batch, in place, if it is not `recipe_batch`."""
    recipe = config.get("recipe_batch")
    if type(recipe) is not int or recipe < 1 or not _is_plain(config):
        return
    more = batch_of(config) / recipe
    for where, node in _optimizers(config):
        if f"{where}.lr" not in typed:
            node.lr = float(f"{node.lr * rate_factor(str(node['_target_']), more):.6g}")
    for key, factor in (("max_steps", more), ("val_check_interval", _more_in_a_batch(config, typed, more))):
        value = config.trainer.get(key)
        if type(value) is int and value > 0 and f"trainer.{key}" not in typed:
            config.trainer[key] = max(round(value / factor), 1)


def _more_in_a_batch(config: DictConfig, typed: set[str], more: float) -> float:
    """How many times the recipe's crops one batch has, as validations are counted in batches, not in steps.

    A recipe of which the command line sets the accumulation is taken to have none.
    """
    if BATCH[1] not in typed or config.trainer.get("check_val_every_n_epoch") is not None:
        return more
    return more / int(config.trainer.accumulate_grad_batches)


def rate_factor(optimizer: str, more: float) -> float:
    """The factor on the learning rate for `more` times the batch."""
    return more if optimizer.rpartition(".")[2].lower() == "sgd" else math.sqrt(more)


def _optimizers(config: DictConfig) -> Iterable[tuple[str, Any]]:
    objectives = config.get("objective") or {}
    places = {"family": config.get("family")} | {
        f"objective.{name}": node for name, node in objectives.items()
    }
    for where, part in places.items():
        node = part.get("optimizer") if isinstance(part, DictConfig) else None
        if isinstance(node, DictConfig) and "lr" in node:
            yield f"{where}.optimizer", node


def in_words(config: DictConfig) -> str:
    """How the batch differs from the recipe's, for a run's first line; empty if it does not."""
    recipe = config.get("recipe_batch")
    if type(recipe) is not int or not _is_plain(config) or batch_of(config) == recipe:
        return ""
    optimizer = config.family.optimizer
    return (
        f"batch {batch_of(config)}, the recipe's is {recipe}; learning rate {optimizer.lr:.4g} (rates and "
        "steps follow the batch unless they are set; recipe_batch=null keeps the recipe's)"
    )
