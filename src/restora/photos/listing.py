"""The photos of a folder, as every command lists them: each real file once, in a fixed order.

Hidden files and folders are left out. Links, also hard links, are followed (`walking.py`) unless their target
is listed by itself: otherwise one photo could be in both the training and the test part.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path

from restora.photos.kinds import kind, why_not
from restora.walking import files_below

Identity = tuple[int, int]


@dataclass
class Listing:
    """The contents of a folder.

    `photos` are sorted by path, as are `videos`, if they were asked for; `left_out` has pictures and videos
    that cannot be read, broken links and folders that cannot be opened, each with its reason; `links` counts
    further names of listed photos; `others` counts files that are not pictures at all.
    """

    photos: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    links: int = 0
    others: int = 0


def look_through(folder: Path, *, avoid: Path | None = None, videos: bool = False) -> Listing:
    """Everything below `folder`, without what is below `avoid` (the folder that is written to).

    Without `videos`, these are left out.
    """
    listing = Listing()
    found: dict[Identity, Path] = {}
    for path in files_below(
        folder, avoid=avoid, unopened=lambda path, why: listing.left_out.setdefault(path, why)
    ):
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
        elif what != "photo" and not (what == "video" and videos):
            listing.left_out[path] = why_not(path)
        elif status.st_ino and identity in found:
            listing.links += 1
        else:
            found[identity] = path
            (listing.photos if what == "photo" else listing.videos).append(path)
    listing.photos.sort()
    listing.videos.sort()
    return listing


def list_photos(folder: Path) -> list[Path]:
    """All photo files below `folder`, each real file once, in a fixed order."""
    return look_through(folder).photos
