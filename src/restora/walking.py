"""Lists the files below a folder, also through links, visiting each folder once.

Data sets and results are often links to another disk. Following a link to a folder above it would never end,
and `Path.rglob` follows no links.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

Identity = tuple[int, int]


def files_below(
    folder: str | Path,
    *,
    avoid: Path | None = None,
    unopened: Callable[[Path, str], object] | None = None,
) -> Iterator[Path]:
    """The files below `folder`, regular files before links to files.

    Files below `avoid` and in hidden folders are left out; `unopened` is called with each folder that cannot
    be opened, and the reason.
    """
    seen = set() if avoid is None else _identity(avoid)
    linked: list[Path] = []
    waiting = [Path(folder)]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            for parent, folders, files in os.walk(top, onerror=lambda error: _say(error, unopened)):
                here = Path(parent)
                own = _identity(here)
                if own & seen:
                    folders.clear()
                    continue
                seen |= own
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [here / name for name in folders if (here / name).is_symlink()]
                folders[:] = [name for name in folders if not (here / name).is_symlink()]
                paths = [here / name for name in sorted(files)]
                linked += [path for path in paths if path.is_symlink()]
                yield from (path for path in paths if not path.is_symlink())
        waiting = links
    yield from linked


def _identity(folder: Path) -> set[Identity]:
    """A set with the folder's device and inode; empty if they are unknown."""
    try:
        status = folder.stat()
    except OSError:
        return set()
    return {(status.st_dev, status.st_ino)} if status.st_ino else set()


def _say(error: OSError, unopened: Callable[[Path, str], object] | None) -> None:
    if unopened is not None and error.filename is not None:
        unopened(Path(error.filename), f"is a folder that cannot be opened: {error.strerror}")
