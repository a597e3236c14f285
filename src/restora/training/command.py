"""The command that repeats a run.

For a job of a sweep it repeats only that job, for a resumed run the whole run.
"""

import shlex
from collections.abc import Sequence

_KEPT = ("hydra.searchpath", "hydra.job.env_set", "hydra.job.chdir")
"""Hydra's own overrides that affect a run; all others concern folders, sweeps and launchers."""


def repeating(overrides: Sequence[str], hydra: Sequence[str] = (), config_dir: str | None = None) -> str:
    """One line for a POSIX shell, without the run's folder, so that it starts a new run.

    `overrides` are those of the run in Hydra's form, `hydra` those of Hydra's settings.
    """
    own = ["--config-dir", config_dir] if config_dir else []
    settings = [word for word in hydra if _key(word).startswith(_KEPT)]
    return shlex.join(["restora", "train", *own, *own_overrides(overrides), *settings])


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides without `resume`."""
    return [str(word) for word in overrides if _key(word) != "resume"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
