"""The packed store: photos decoded once to uint8 rows in one file, memory-mapped; a crop is a slice.

A store is a folder with `photos.bin` (the pixels of all photos, (H,W,C) one after another) and `index.json`
(where each photo lies, its name, the SHA-256 of its pixels, and the files that were left out and why).
`packing.py` writes it; this module reads it. The index carries its own SHA-256, so that a damaged store is
recognised and packed again. Note: a store is pickled to a worker process as its path, never as its pixels.
"""

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from restora.files import json_text, read_json
from restora.photos.errors import PhotoError
from restora.photos.reading import Pixels
from restora.words import counted

log = logging.getLogger(__name__)
FORMAT = 3
"""Part of the folder's fingerprint, so that photos are packed again when it changes. Stores of format 1 have
PGM files of 10 bits in the wrong brightness, those of format 2 no checksums."""
INDEX, PIXELS = "index.json", "photos.bin"
_SAMPLED_BYTES = 64 << 20
"""Bytes that are read at the start of a run to check that the pixels are those that were packed: 0.1 s."""


_COMPARED = 4
"""Photos that are decoded to see whether files that are not those seen before hold what was packed."""


class DamagedStore(ValueError):
    """A packed store that was changed or is damaged; the message names the file."""


@dataclass(frozen=True)
class Plane:
    """Where one picture lies in the file: byte offset, height, width; and the SHA-256 of its pixels."""

    offset: int
    height: int
    width: int
    sha256: str = ""


@dataclass(frozen=True)
class Entry:
    """One photo, with its degraded partner where the data are paired.

    `path` is the clean file's; `seen` are the `stamp`s of the files when they were packed, if known.
    """

    name: str
    path: str
    clean: Plane
    degraded: Plane | None = None
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used, and why."""

    path: str
    reason: str


class PhotoStore:
    """Reads a packed store. Pixels are read-only views of the memory-mapped file, not copied until used.

    Raises `DamagedStore` for a damaged index, or if pixels are missing.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        index = _read_index(folder / INDEX)
        self.channels = int(index["channels"])
        self.entries = [_entry(row) for row in index["photos"]]
        self.left_out = [LeftOut(**row) for row in index["left_out"]]
        self.digest = str(index["sha256"])
        """SHA-256 of the index, which covers everything that the store holds."""
        end = max((plane.offset + self._bytes(plane) for plane in self._planes()), default=0)
        size = (folder / PIXELS).stat().st_size if (folder / PIXELS).is_file() else -1
        if size < end:
            found = "is missing" if size < 0 else f"has {size} bytes, expected {end}"
            raise DamagedStore(f"{folder / PIXELS} {found}")
        self._pixels: Pixels | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the photos and their names, whatever path they were read from."""
        digest = hashlib.sha256(f"{self.channels}".encode())
        for entry in self.entries:
            planes = [entry.clean.sha256, entry.degraded.sha256 if entry.degraded else ""]
            digest.update("\t".join(["\n" + entry.name, *planes]).encode())
        return digest.hexdigest()[:32]

    def are_at(self, places: Mapping[str, str]) -> None:
        """Takes the places of the photos, by name: they may have been moved since they were packed."""
        self.entries = [replace(entry, path=places.get(entry.name, entry.path)) for entry in self.entries]

    def is_of(self, places: Mapping[str, Sequence[Path]], read: Callable[[Path, int], Pixels]) -> bool:
        """Whether the files at these places, by name, are those that were packed.

        Of files that are not the same on the disk, the pixels of a few photos are compared: others may have
        the same names, sizes and times.
        """
        unlike = [entry for entry in self.entries if entry.seen != tuple(map(stamp, places[entry.name]))]
        for entry in unlike[:: -(-len(unlike) // _COMPARED) or 1]:
            planes = [plane for plane in (entry.clean, entry.degraded) if plane is not None]
            for path, plane in zip(places[entry.name], planes, strict=True):
                try:
                    pixels = np.ascontiguousarray(read(path, self.channels))
                except PhotoError:
                    return False
                if hashlib.sha256(pixels.data).hexdigest() != plane.sha256:
                    return False
        return True

    def verify(self, *, whole: bool = False) -> None:
        """Compares pixels with their checksums: of all photos, or of a random few that take 0.1 s.

        Raises `DamagedStore`.
        """
        planes = list(dict.fromkeys(self._planes()))
        random.Random().shuffle(planes)  # another sample at each start; global random state stays as it is
        left = sum(map(self._bytes, planes)) if whole else _SAMPLED_BYTES
        for plane in planes:
            if left <= 0:
                return
            left -= self._bytes(plane)
            if hashlib.sha256(self._view(plane).data).hexdigest() != plane.sha256:
                names = [e.name for e in self.entries if plane in (e.clean, e.degraded)]
                raise DamagedStore(f"{self.folder / PIXELS}: the pixels of {names[0]} are not those packed")

    def _planes(self) -> Iterable[Plane]:
        return (plane for e in self.entries for plane in (e.clean, e.degraded) if plane is not None)

    def _bytes(self, plane: Plane) -> int:
        return plane.height * plane.width * self.channels

    def __len__(self) -> int:
        return len(self.entries)

    def clean(self, index: int) -> Pixels:
        """The clean photo as uint8 (H,W,C)."""
        return self._view(self.entries[index].clean)

    def degraded(self, index: int) -> Pixels:
        """The degraded partner as uint8 (H/s,W/s,C)."""
        plane = self.entries[index].degraded
        assert plane is not None, f"{self.entries[index].name} has no degraded partner"
        return self._view(plane)

    def _view(self, plane: Plane) -> Pixels:
        if self._pixels is None:
            self._pixels = np.memmap(self.folder / PIXELS, dtype=np.uint8, mode="r").view(np.ndarray)
        rows = self._pixels[plane.offset : plane.offset + self._bytes(plane)]
        return rows.reshape(plane.height, plane.width, self.channels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def stamp(path: Path) -> str:
    """Identifies the file at a path as it is: another file there has another stamp, whatever its times."""
    try:
        status = path.stat()
        identity = f"{path}\t{status.st_dev} {status.st_ino} {status.st_ctime_ns}"
    except OSError:  # a source of one's own may read what is not a file
        identity = f"{path}\tmissing"
    return hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def fingerprint(stores: Mapping[str, PhotoStore]) -> str:
    """The fingerprint of the photos of several stores together; of one, its own."""
    found = [f"{name} {store.fingerprint}" for name, store in stores.items()]
    if len(stores) == 1:
        return found[0].rpartition(" ")[2]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:32]


def index_digest(index: dict[str, Any]) -> str:
    """SHA-256 of an index without its own checksum."""
    rest = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json_text(rest, indent=None, sort_keys=True).encode()).hexdigest()


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = read_json(path)
    except (OSError, ValueError) as error:
        raise DamagedStore(f"{path} cannot be read: {error}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DamagedStore(f"{path} is not an index of format {FORMAT}")
    if index.get("sha256") != index_digest(index):
        raise DamagedStore(f"{path} was changed or is damaged: its SHA-256 does not match")
    return index


def _entry(row: dict[str, Any]) -> Entry:
    degraded = None if row["degraded"] is None else Plane(*row["degraded"])
    return Entry(row["name"], row["path"], Plane(*row["clean"]), degraded, tuple(row.get("seen", ())))


def warn_of_left_out(where: str, gone: Sequence[LeftOut]) -> None:
    """Names files that cannot be used."""
    files = f"{counted(len(gone), 'file')}{where} {'is' if len(gone) == 1 else 'are'}"
    log.warning("%s left out:\n%s", files, listed(gone))


def warn_of_equal_pairs(split: str, store: PhotoStore) -> None:
    """Warns if the degraded photo of every pair equals the clean one: nothing could be learnt of them."""
    pairs = [(entry.clean.sha256, entry.degraded.sha256) for entry in store.entries if entry.degraded]
    if pairs and all(clean == degraded for clean, degraded in pairs):
        log.warning(
            "%s for %s: the degraded photo equals the clean one, pixel for pixel, in all: check degraded/",
            counted(len(pairs), "pair"),
            split,
        )


def listed(gone: Sequence[LeftOut]) -> str:
    """The first twenty files, a line each with its reason."""
    lines = "\n".join(f"  {file.path}: {file.reason}" for file in gone[:20])
    return lines + (f"\n  and {len(gone) - 20} more" if len(gone) > 20 else "")
