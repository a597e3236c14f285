"""Words of the command line that another setting leaves without effect are refused.

A run that is resumed with such words goes on as it began. An objective that takes values of another one is
refused without it.
"""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

_SIZES = ("data.batch_size", "data.patch_size")
_LOSS = ("loss", "loss@family.loss", "family.loss")


def check_effects(config: DictConfig, typed: set[str]) -> None:
    """Raises ValueError for words without effect, and for an objective without the one that it goes with.

    Words without effect are a size that `data.stages` replaces, and a loss that no objective takes. `typed`
    are the keys that the command line sets.
    """
    _check_company(config)
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


def _check_company(config: DictConfig) -> None:
    objectives = config.get("objective")
    if not isinstance(objectives, DictConfig):
        return
    nodes: Any = OmegaConf.to_container(objectives, resolve=False)
    names = [str(name) for name in nodes]
    for name, node in zip(names, nodes.values(), strict=True):
        missing = [other for other in re.findall(r"\$\{objective\.(\w+)", str(node)) if other not in names]
        if missing:
            raise ValueError(
                f"objective={name} goes with {missing[0]}: set "
                f"objective=[{','.join(dict.fromkeys([*names, *missing]))}]"
            )


def _in_words(stage: Mapping[Any, Any]) -> str:
    return f"{{{','.join(f'{key}:{value}' for key, value in stage.items())}}}"
