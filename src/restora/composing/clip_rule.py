"""Gradient clipping where an experiment's objectives are replaced by ones with parameters of their own.

Lightning clips one optimiser (`trainer.gradient_clip_val`). With several, the family clips each
(`family.gradient_clip`). An experiment's value is used for either, unless the user sets one of them.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

_TRAINER, _FAMILY = "trainer.gradient_clip_val", "family.gradient_clip"


def fit_clipping(config: DictConfig, typed: set[str]) -> None:
    """Moves the experiment's clipping norm from the trainer to the family, in place, where it is needed.

    `typed` are the keys that the command line sets; a `trainer.gradient_clip_val` among them stays.
    """
    clip = OmegaConf.select(config, _TRAINER)
    if _TRAINER in typed or clip is None or not _has_opponents(config):
        return
    if OmegaConf.select(config, "trainer.gradient_clip_algorithm") == "value":  # the family clips norms
        return
    if _FAMILY not in typed and config.family.get("gradient_clip") is None:
        config.family.gradient_clip = clip
    config.trainer.gradient_clip_val = None


def _has_opponents(config: DictConfig) -> bool:
    """Whether an objective has an optimiser of its own."""
    if not all(isinstance(config.get(name), DictConfig) for name in ("objective", "family")):
        return False
    nodes: Mapping[Any, Any] = config.objective
    return any(isinstance(node, DictConfig) and node.get("optimizer") is not None for node in nodes.values())
