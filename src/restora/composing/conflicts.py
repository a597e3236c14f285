"""Says which choice of the command line leaves a choice of an experiment's file without its place."""

import re
from collections.abc import Iterable

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
