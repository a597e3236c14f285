"""Words of the command line that another setting leaves without effect are refused.

A run that is resumed with such words goes on as it began.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

_SIZES = ("data.batch_size", "data.patch_size")
_LOSS = ("loss", "loss@family.loss", "family.loss")


def check_effects(config: DictConfig, typed: set[str]) -> None:
    """Raises ValueError for a size that `data.stages` replaces, or a loss that no objective takes.

    `typed` are the keys that the command line sets.
    """
    if config.get("resume") is None:
        _check_sizes(config, typed)
        _check_loss(config, typed)


def _check_sizes(config: DictConfig, typed: set[str]) -> None:
    stages = OmegaConf.select(config, "data.stages")
    for key in _SIZES if stages and "data.stages" not in typed else ():
        if key in typed:
            raise ValueError(
                f"{key}={OmegaConf.select(config, key)} has no effect, as data.stages has the sizes of each "
                "stage: set data.stages=null for one size, or name stages of your own, "
                f"data.stages=[{_in_words(stages[0])},…]"
            )


def _check_loss(config: DictConfig, typed: set[str]) -> None:
    words = [key for key in sorted(typed) if key in _LOSS or key.startswith("family.loss.")]
    objectives = config.get("objective")
    if not words or not isinstance(objectives, DictConfig) or not objectives:
        return
    if "${family.loss" not in OmegaConf.to_yaml(objectives, resolve=False):
        names = ",".join(map(str, objectives))
        fix = "set objective.noise2noise.norm=l1" if "noise2noise" in objectives else "leave it out"
        raise ValueError(
            f"{words[0]} has no effect, as objective={names} takes no loss: {fix}, or add supervised, "
            f"objective=[supervised,{names}]"
        )


def _in_words(stage: Mapping[Any, Any]) -> str:
    return f"{{{','.join(f'{key}:{value}' for key, value in stage.items())}}}"
