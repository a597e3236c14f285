"""The task of a run whose degradation was chosen on the command line; recipes name their task themselves.

`experiments=denoise/nafnet degradation=jpeg` is about JPEG: the task in the run's record, its model card and
W&B's tags follows the degradation, unless `task` is set too. A network that enlarges does not denoise either,
whatever its photos are; of pairs, nothing else is known.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from restora.composing.constructors import own_parts

_OF_FOLDERS = {
    "noise": "denoise",
    "blur": "deblur",
    "missing": "inpaint",
    "colour": "colour",
    "compose": "",
    "degradations": "",  # compositions, and none at all
}
"""The task by the folder of a degradation's source file."""
_OF_NAMES = {
    "jpeg": "jpeg",
    "greyscale": "colourise",
    "rain": "derain",
    "haze": "dehaze",
    "downsample": "super_resolution",
    "varying_resizing": "super_resolution",
}
_OTHER = "restore"


def fit_task(config: DictConfig, overrides: Iterable[str]) -> None:
    """Sets the task of a composed configuration, in place, unless the overrides do.

    It follows a degradation among the overrides, one that is known for another task than the usual one, and
    the scale of the network.
    """
    keys = {word.lstrip("+~").partition("=")[0] for word in overrides}
    if "task" in keys or "task" not in config:
        return
    is_usual = config.task == "denoise"  # also that of a recipe that names none
    if "degradation" in config and ("degradation" in keys or is_usual):
        task = _task_of(OmegaConf.to_container(config.degradation, resolve=False))
        if task is not None and ("degradation" in keys or task != _OTHER):
            config.task = task
    if config.task == "denoise" and _enlarges(config):
        config.task = "super_resolution"


def _enlarges(config: DictConfig) -> bool:
    network = config.get("network")
    scale = network.get("scale") if isinstance(network, DictConfig) else None
    return type(scale) is int and scale > 1


def _task_of(node: Any) -> str | None:
    """The task of a degradation's description; None if it leaves photos unchanged."""
    found = {task for name in _targets(node) if (task := _task_of_part(name))}
    if len(found) > 1:
        return "super_resolution" if "super_resolution" in found else _OTHER
    return next(iter(found), None)


def _task_of_part(name: str) -> str:
    path = own_parts("degradation").get(name)
    folder = path.parent.name if isinstance(path, Path) else ""
    return _OF_NAMES.get(name) or _OF_FOLDERS.get(folder, _OTHER)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
