"""The command that repeats a run.

Of this one job where it is one of a sweep, of the whole run where it was resumed.
"""

import shlex
from collections.abc import Sequence

_KEPT = ("hydra.searchpath", "hydra.job.env_set", "hydra.job.chdir")
"""What Hydra's own overrides may say about a run; all others are about folders, sweeps and launchers."""


def repeating(overrides: Sequence[str], hydra: Sequence[str] = (), config_dir: str | None = None) -> str:
    """One line for a POSIX shell, without the folder of the run, so that typing it makes a new one.

    `overrides` are the run's own, in Hydra's form, `hydra` those of Hydra's settings.
    """
    own = ["--config-dir", config_dir] if config_dir else []
    settings = [word for word in hydra if _key(word).startswith(_KEPT)]
    return shlex.join(["restora", "train", *own, *own_overrides(overrides), *settings])


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Without the one that made an interrupted run go on."""
    return [str(word) for word in overrides if _key(word) != "resume"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
