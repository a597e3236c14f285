"""Train, sweep, compare, export and use image-restoration networks.

In Python: `from restora import Restorer` restores photos, `restore_video` with it video files, `open_source`
gives the network itself, and `fit("zs_n2n", Problem(photo))` restores without a trained network. All are
imported on first access, so that `import restora` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restora.artifact.restorer import Restorer
    from restora.artifact.sources import open_source
    from restora.fitting.base import Problem
    from restora.fitting.running import fit
    from restora.video.restoring import restore_video

__version__ = "0.1.0"
__all__ = ["Problem", "Restorer", "__version__", "fit", "open_source", "restore_video"]

_LAZY = {
    "Restorer": "restora.artifact.restorer",
    "open_source": "restora.artifact.sources",
    "Problem": "restora.fitting.base",
    "fit": "restora.fitting.running",
    "restore_video": "restora.video.restoring",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'restora' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
