"""The packed store: photos decoded once to uint8 rows in one file, memory-mapped; a crop is a slice.

A store is a folder with `photos.bin` (the pixels of all photos, (H,W,C) one after another) and `index.json`
(where each photo lies, its name, and the files that were left out and why). `packing.py` writes it; this
module reads it. What surprises: a store is pickled to a worker process as its path, never as its pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restora.files import read_json
from restora.photos.reading import Pixels

FORMAT = 2
"""Part of the folder's name, so that photos are packed again where it changes. Stores of format 1 have PGM
files of 10 bits in the wrong brightness."""
INDEX, PIXELS = "index.json", "photos.bin"


@dataclass(frozen=True)
class Plane:
    """Where one picture lies in the file: byte offset, height, width."""

    offset: int
    height: int
    width: int


@dataclass(frozen=True)
class Entry:
    """One photo, with its degraded partner where the data are paired. `path` is the clean file's."""

    name: str
    path: str
    clean: Plane
    degraded: Plane | None = None


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used, and why."""

    path: str
    reason: str


class PhotoStore:
    """Reads a packed store. Pixels are views of the mapped file: read-only, no copy until they are used."""

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        index = read_json(folder / INDEX)
        assert index["format"] == FORMAT, f"{folder} has format {index['format']}"
        self.channels = int(index["channels"])
        self.entries = [_entry(row) for row in index["photos"]]
        self.left_out = [LeftOut(**row) for row in index["left_out"]]
        self._pixels: Pixels | None = None

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
        size = plane.height * plane.width * self.channels
        rows = self._pixels[plane.offset : plane.offset + size]
        return rows.reshape(plane.height, plane.width, self.channels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def _entry(row: dict[str, Any]) -> Entry:
    degraded = None if row["degraded"] is None else Plane(*row["degraded"])
    return Entry(row["name"], row["path"], Plane(*row["clean"]), degraded)
