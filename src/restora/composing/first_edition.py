"""Translates overrides of the first edition, so that its runs can be continued.

Dotted class names in its files are resolved by `registry.find`, its checkpoints' weights by
`Family.on_load_checkpoint`.
"""

from collections.abc import Iterable

_KEYS = {
    "family.pixel_weight": "objective.supervised.weight",
    "family.perceptual_weight": "objective.perceptual.weight",
    "family.matching_weight": "objective.feature_matching.weight",
    "family.adversarial_weight": "objective.adversarial.weight",
    "family.conditional": "objective.adversarial.conditional",
    "family.warmup_steps": "objective.adversarial.start_step",
    "family.discriminator_optimizer": "objective.adversarial.optimizer",
    "family.discriminator": "objective.adversarial.discriminator",
    "family.adversarial": "objective.adversarial.loss",
    "family.perceptual": "objective.perceptual.loss",
    "family.scale_weights": "objective.multi_scale.scale_weights",
    "family.hole_weight": "objective.masked.hole_weight",
    "benchmark.told_sigma": "benchmark.conditioned_sigma",
}


def renamed_key(key: str) -> str | None:
    """The present name of a first edition's key or `group@package`; None if it has not changed."""
    group, at, package = key.partition("@")
    path = package if at else group
    for old, new in _KEYS.items():
        if path == old or path.startswith(f"{old}."):
            return f"{group}@{new}{path[len(old) :]}" if at else f"{new}{path[len(old) :]}"
    return None


def renamed(overrides: Iterable[str]) -> list[str]:
    """The overrides with present keys, and with the choice of the objectives that the keys belong to."""
    words, objectives = [], []
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        now = renamed_key(key)
        if now is None:
            words.append(word)
            continue
        words.append(f"{now}={value}")
        objectives.append((now.partition("@")[2] or now).split(".")[1])
    if "perceptual" in objectives:
        words.insert(0, "objective=[supervised,perceptual,feature_matching,adversarial]")
    elif "multi_scale" in objectives:
        words = [word.replace("objective.masked.", "objective.multi_scale.") for word in words]
        words.insert(0, "objective=multi_scale")
    elif "masked" in objectives:
        words.insert(0, "objective=masked")
    return words
