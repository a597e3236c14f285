"""Finds the files of metrics' parameters. Nothing is downloaded."""

import os
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "RESTORA_METRIC_WEIGHTS"


def weight_folders() -> list[Path]:
    """The folder that `RESTORA_METRIC_WEIGHTS` names, and torch's own cache of checkpoints."""
    from torch.hub import get_dir

    named = os.environ.get(VARIABLE)
    return ([Path(named)] if named else []) + [Path(get_dir()) / "checkpoints"]


def find_weights(name: str, *, package: str | None = None, inside: str = "") -> Path | None:
    """The file `name` in one of the folders, or at `inside` of an installed package."""
    candidates = [folder / name for folder in weight_folders()]
    spec = find_spec(package) if package is not None else None
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / inside / name)
    return next((path for path in candidates if path.is_file()), None)


def missing_weights(name: str, where_from: str) -> str:
    """The reason to give when `find_weights` finds nothing."""
    folders = " nor ".join(str(folder) for folder in weight_folders())
    return f"{name} ({where_from}) is not in {folders}: put it there, or set {VARIABLE} to its folder"
