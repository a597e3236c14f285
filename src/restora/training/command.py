"""The command that repeats a run.

For a job of a sweep it repeats only that job, for a resumed run the whole run.
"""

import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

_KEPT = ("hydra.searchpath", "hydra.job.env_set", "hydra.job.chdir")
"""Hydra's own overrides that affect a run; all others concern folders, sweeps and launchers."""


def repeating(overrides: Sequence[str], hydra: Sequence[str] = (), folders: Iterable[str] = ()) -> str:
    """One line for a POSIX shell, without the run's folder, so that it starts a new run.

    `overrides` are those of the run in Hydra's form, `hydra` those of Hydra's settings, `folders` those of
    `--config-dir`.
    """
    own = [word for folder in folders for word in ("--config-dir", folder)]
    settings = [word for word in hydra if _key(word).startswith(_KEPT)]
    return shlex.join(["restora", "train", *own, *own_overrides(overrides), *settings])


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides without `resume`."""
    return [str(word) for word in overrides if _key(word) != "resume"]


def own_folders(sources: Iterable[Any]) -> list[str]:
    """The folders of `--config-dir` among Hydra's sources of configuration."""
    return [str(source.path) for source in sources if source.provider == "command-line"]


def folders_in(command: str) -> list[str]:
    """The folders of `--config-dir` in a command that `repeating` made."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    return [folder for word, folder in pairwise(words) if word == "--config-dir"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
