"""Objects from configuration nodes: `_target_` names a class of this package, the other keys are its
arguments.

A node may come from a stranger's checkpoint, so only `restora.*` is ever called, with plain values.
"""

import importlib
from collections.abc import Mapping
from typing import Any

PACKAGE = "restora."


def build(node: Any, where: str) -> Any:
    """The object that a node describes; lists and mappings are built inside out, other values are themselves.

    `where` names the node in messages. Raises ValueError for a target outside this package or unknown
    arguments.
    """
    if isinstance(node, list | tuple):
        return [build(value, where) for value in node]
    if not isinstance(node, Mapping):
        return node
    values = {str(key): build(value, f"{where}.{key}") for key, value in node.items() if key != "_target_"}
    target = node.get("_target_")
    if target is None:
        return values
    module, _, name = str(target).rpartition(".")
    if not module.startswith(PACKAGE):
        raise ValueError(f"{where}: {target} is refused: only classes of {PACKAGE}* are built")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where}: this version of restora has no {target}") from error
    try:
        return made(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {name} cannot be made of {', '.join(values)}: {error}") from error
