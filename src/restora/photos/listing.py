"""The photos of a folder, as every command lists them: each real file once, in a fixed order.

Hidden files and folders are left out. Linked folders are walked and linked files read, unless what they lead
to was found by itself: a link into a folder above it would otherwise list one photo for ever, and the same
photo would teach and test. Hard links count as links.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from restora.photos.kinds import kind, why_not

Identity = tuple[int, int]


@dataclass
class Listing:
    """What a folder holds.

    `photos` by name; `left_out` has pictures and videos that cannot be read, links to nowhere and folders
    that cannot be opened, each with its reason; `links` is the number of further names of photos that are
    listed; `others` that of files that are not pictures at all.
    """

    photos: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    links: int = 0
    others: int = 0


def look_through(folder: Path, *, avoid: Path | None = None) -> Listing:
    """Everything below `folder`, without what is below `avoid` (the folder that is written to)."""
    listing = Listing()
    found: dict[Identity, Path] = {}
    for path in _files(folder, avoid, listing.left_out):
        what = kind(path)
        if what == "other":
            listing.others += not path.name.startswith(".")
            continue
        try:
            status = path.stat()
        except OSError as error:
            nowhere = path.is_symlink() and isinstance(error, FileNotFoundError)
            listing.left_out[path] = (
                "is a link to nowhere" if nowhere else f"cannot be opened: {error.strerror}"
            )
            continue
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            listing.left_out[path] = "is not a file"
        elif what != "photo":
            listing.left_out[path] = why_not(path)
        elif status.st_ino and identity in found:
            listing.links += 1
        else:
            found[identity] = path
            listing.photos.append(path)
    listing.photos.sort()
    return listing


def list_photos(folder: Path) -> list[Path]:
    """All photo files below `folder`, each real file once, in a fixed order."""
    return look_through(folder).photos


def _files(folder: Path, avoid: Path | None, left_out: dict[Path, str]) -> Iterator[Path]:
    """The files below `folder`, those with a name of their own before those that links lead to."""
    seen = set() if avoid is None else _identity(avoid)
    linked: list[Path] = []
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            for parent, folders, files in os.walk(top, onerror=lambda error: _unopened(error, left_out)):
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
    """What tells a folder from others, in a set; an empty one where it cannot be known."""
    try:
        status = folder.stat()
    except OSError:
        return set()
    return {(status.st_dev, status.st_ino)} if status.st_ino else set()


def _unopened(error: OSError, left_out: dict[Path, str]) -> None:
    if error.filename is not None:
        left_out[Path(error.filename)] = f"is a folder that cannot be opened: {error.strerror}"
