"""The shipped models: `zoo:NAME` is a model folder of the package wherever a model is named.

Enters: a name. Leaves: the model folder (weights in float16, model.json with the measured figures, card).
"""

import difflib
from pathlib import Path

PREFIX = "zoo:"
DEFAULT = f"{PREFIX}photo"
"""The model for everyday photos if none is named."""
SPECIAL = ("denoise_gray", "half_minute", "sr_x2", "sr_x4")
"""Models for grey photos, or for photos that were only reduced: these are not offered by default."""
FOLDER = Path(__file__).resolve().parent / "models"


def is_zoo(source: str | Path) -> bool:
    """Whether a source of a model names a shipped one."""
    return str(source).startswith(PREFIX)


def names() -> list[str]:
    """The shipped models, in alphabetical order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model.json"))


def offered() -> list[str]:
    """Sources of the shipped models that are for photos of any kind, the default first."""
    found = [f"{PREFIX}{name}" for name in names() if name not in SPECIAL]
    return sorted(found, key=lambda source: source != DEFAULT)


def folder_of(name: str) -> Path:
    """The model folder of `zoo:NAME` or NAME. Raises ValueError, with a near name, for others."""
    wanted, shipped = name.removeprefix(PREFIX), names()
    if wanted in shipped:
        return FOLDER / wanted
    near = difflib.get_close_matches(wanted, shipped, n=1, cutoff=0.5)
    hint = f" Did you mean {PREFIX}{near[0]}?" if near else ""
    raise ValueError(f"there is no model {PREFIX}{wanted}.{hint} `restora zoo` lists: {', '.join(shipped)}")
