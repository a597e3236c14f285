"""Safety checks of run folders from untrusted sources, before they are used.

A folder that was unpacked from an archive can hold links, and a run that writes to a link writes to the
link's target. So a run is continued only if no link leads out of its folder. Its relative paths are relative
to the folder in which it was started; the record's entry on that is trusted only if it is an absolute path
outside of the run folder.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OF_WANDB = re.compile(r"(?:.*/)?[^/]*run-[^/]*/logs/debug-core\.log")
"""W&B's own link to its log, which is in the user's cache."""
_SETTINGS = re.compile(r"(?:.*/)?\.?wandb/settings")
"""Settings that W&B reads from its working directory, such as the address that API keys are sent to."""


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
    """The folder in which the run or sweep of `folder` was started, from its record.

    None if there is none, or if it is not trusted: a relative path, or one inside of `folder`.
    """
    place = (record or {}).get("cwd")
    if not isinstance(place, str) or not os.path.isabs(place) or "\0" in place:
        return None
    return None if _is_in(os.path.realpath(place), os.path.realpath(folder)) else Path(place)


def _is_in(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
