"""Run folders that somebody else may have made: what their files must not do before they are used.

A folder that was unpacked from an archive can hold links, and what a run writes to a link is written where
the link leads. So a run goes on only where everything in its folder lies in it. The folder in which it was
started, to which its relative paths belong, is believed where it is an absolute path outside of it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OF_WANDB = re.compile(r"(?:.*/)?[^/]*run-[^/]*/logs/debug-core\.log")
"""A link to its own log, in the cache of the user, that W&B makes."""
_SETTINGS = re.compile(r"(?:.*/)?\.?wandb/settings")
"""What W&B reads where it is started, such as the address that keys are sent to."""


def check_inside(folder: Path) -> None:
    """Raises ValueError for a folder with a link that leads out of it, or with settings for W&B."""
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            below = os.path.relpath(path, root)
            if _SETTINGS.fullmatch(below):
                raise ValueError(f"{path} sets what W&B does, which a run folder must not: remove it")
            if not os.path.islink(path) or _is_in(os.path.realpath(path), root):
                continue
            if not _OF_WANDB.fullmatch(below) or "files" in below.split("/"):
                raise ValueError(
                    f"{path} is a link to {os.path.realpath(path)}, outside of {root}, and a run writes "
                    "in its own folder only: put what it leads to in its place, or remove it"
                )


def started_in(record: Mapping[str, Any] | None, folder: Path) -> Path | None:
    """The folder that a record says the run or sweep of `folder` was started in.

    None where there is none, and where it is not believed: relative, or part of what came with the record.
    """
    place = (record or {}).get("cwd")
    if not isinstance(place, str) or not os.path.isabs(place) or "\0" in place:
        return None
    return None if _is_in(os.path.realpath(place), os.path.realpath(folder)) else Path(place)


def _is_in(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
