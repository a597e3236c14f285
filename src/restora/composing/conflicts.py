"""Says what is missing for a choice: its place in the composition, or the file of a registered part."""

import re
from collections.abc import Iterable

from restora import registry
from restora.composing.sources import COMPLETED

_SWITCHES = {
    "logger": "W&B is switched off by logger.mode=disabled; metrics.csv is written in any case",
    "callbacks": "a callback is switched off by callbacks.NAME=null",
    "sweep": "a run without -m is no sweep",
}
"""Groups of which every run has an option, and how to do without what it does."""
_WITHOUT_PLACE = re.compile(r"In '([^']+)': Could not override '([^']+)'")


def lost_place(message: str, overrides: Iterable[str]) -> str | None:
    """What to change, for Hydra's message on an `override` of a group that nothing takes.

    None for any other message.
    """
    if (found := _WITHOUT_PLACE.search(message)) is None:
        return None
    file, key = found.groups()
    group, _, place = key.partition("@")
    families = [word for word in overrides if word.lstrip("+").startswith("family=")]
    if families and place.startswith("objective."):
        objective = place.split(".")[1]
        return (
            f"{families[-1]}: {file} sets {key}, but this family has no objective {objective}: add "
            f"objective=[supervised,{objective}] to keep it, or objective=[supervised]"
        )
    absent = f"nothing here takes the group {group}" + (f" at {place}" if place else "")
    return f"{file} sets {key}, but {absent}: remove 'override /{key}' from its defaults"


def without_file(group: str, name: str) -> str | None:
    """What to write for a registered part of the user's own that no file of the group describes.

    None for any other name.
    """
    kind = COMPLETED.get(group, group)
    if kind not in registry.PACKAGES or name not in registry.foreign(kind):
        return None
    return (
        f"{group}={name}: the part is registered, but no configuration describes it: write _target_: {name} "
        f"into {group}/{name}.yaml, in the package's folder conf/ or in one that --config-dir names"
    )


def how_without(group: str) -> str:
    """A line that says how to do without what a group is for; empty where there is nothing to say."""
    return f"\n{_SWITCHES[group]}" if group in _SWITCHES else ""
