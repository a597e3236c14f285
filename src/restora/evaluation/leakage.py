"""Near-duplicates between training photos and test sets, by perceptual hash.

Enters: named photos, uint8 (H,W,C). Leaves: pairs that show the same picture, whatever their size,
compression, colour or orientation. Two photos are first compared by the 64 bits of a DCT hash, and a
candidate is then confirmed by the correlation of the two thumbnails. A crop is not recognised once it
lacks a few per cent of the picture.

Legend: n photos, H height, W width, C channels.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restora.image import FULL_RANGE_LUMA
from restora.photos.errors import PhotoError
from restora.photos.reading import list_photos, read_photo

Pixels = NDArray[np.uint8]
THUMBNAIL = 32
HASH_SIDE = 8
NEAR_BITS = 14
"""Candidates differ in at most so many of 64 bits; two unrelated photos in about 32, rarely fewer than 18."""
NEAR_CORRELATION = 0.96
"""Of thumbnails. Copies through JPEG of quality 10, half size or greyscale stay above 0.98."""
_ENOUGH = 256  # pixels a side that a thumbnail is averaged from
_AT_ONCE = 1 << 22  # pairs whose hashes are compared in one step


@dataclass(frozen=True)
class Fingerprints:
    """`thumbnails` float32 (n,32,32), each of mean 0 and norm 1."""

    names: list[str]
    thumbnails: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Leak:
    """A training photo that shows the same picture as a test photo."""

    training: str
    test: str
    bits: int
    correlation: float


@dataclass(frozen=True)
class LeakReport:
    """The photos that were compared, and the leaks found in each test set.

    `training_photos` of `training_total` were compared.
    """

    training_photos: int
    testsets: dict[str, int]
    leaks: dict[str, list[Leak]] = field(default_factory=dict)
    training_total: int | None = None

    def lines(self) -> list[str]:
        """The report in words: one line per test set with leaks, or one line that there are none."""
        if not self.testsets:
            return ["no test set was available to compare the training photos with"]
        compared = ", ".join(f"{name} ({count})" for name, count in self.testsets.items())
        total = self.training_total or self.training_photos
        partly = f"only {self.training_photos} of {total} training photos were compared (time limit)"
        lines = [partly] if total > self.training_photos else []
        if not self.leaks:
            return [*lines, f"no near-duplicate of the {self.training_photos} training photos in {compared}"]
        for name, leaks in self.leaks.items():
            touched = len({leak.test for leak in leaks})
            shown = ", ".join(f"{leak.training} is {leak.test}" for leak in leaks[:3])
            more = ", …" if len(leaks) > 3 else ""
            counted = f"{touched} of {self.testsets[name]} photos of {name}"
            lines.append(f"{counted} are among the training photos: {shown}{more}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for run.json and the model card; `words` are the lines."""
        return {
            "training_photos": self.training_photos,
            "training_total": self.training_total or self.training_photos,
            "testsets": self.testsets,
            "words": self.lines(),
            "leaks": {
                name: [{"training": leak.training, "test": leak.test} for leak in leaks]
                for name, leaks in self.leaks.items()
            },
        }


def find_leaks(
    training: Fingerprints, testsets: Mapping[str, Fingerprints], *, training_total: int | None = None
) -> LeakReport:
    """Compares training photos with those of named test sets.

    `training_total` is the number of training photos, if not all were compared.
    """
    found = {name: near_duplicates(training, tested) for name, tested in testsets.items()}
    return LeakReport(
        training_photos=len(training),
        testsets={name: len(tested) for name, tested in testsets.items()},
        leaks={name: leaks for name, leaks in found.items() if leaks},
        training_total=training_total,
    )


def known_testsets(folder: str | Path) -> dict[str, list[Path]]:
    """The photo files of the available test sets, by name.

    These are the sub-folders of `folder` that hold photos, except hidden ones.
    """
    root = Path(folder).expanduser()
    found = root.iterdir() if root.is_dir() else ()
    folders = sorted(path for path in found if path.is_dir() and not path.name.startswith("."))
    return {folder.name: photos for folder in folders if (photos := list_photos(folder))}


def fingerprints(photos: Iterable[tuple[str, Pixels]], *, deadline: float = float("inf")) -> Fingerprints:
    """Thumbnails of photos, uint8 (H,W,C) each, until `deadline` in seconds of `time.monotonic`."""
    names, thumbnails = [], []
    for name, pixels in photos:
        names.append(name)
        thumbnails.append(thumbnail(pixels))
        if time.monotonic() > deadline:
            break
    return Fingerprints(names, np.array(thumbnails, np.float32).reshape(-1, THUMBNAIL, THUMBNAIL))


def fingerprints_of_files(paths: Sequence[Path], threads: int = 4) -> Fingerprints:
    """Thumbnails of photo files; those that cannot be read are left out."""

    def read(path: Path) -> tuple[str, Pixels] | None:
        try:
            return path.name, read_photo(path)
        except PhotoError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        return fingerprints(item for item in pool.map(read, paths) if item is not None)


def near_duplicates(training: Fingerprints, test: Fingerprints) -> list[Leak]:
    """Pairs that show the same picture, also turned or mirrored.

    The best match of each test photo comes first.
    """
    if not len(training) or not len(test):
        return []
    hashes = hash_bits(training.thumbnails)
    best: dict[tuple[int, int], Leak] = {}
    for turned in symmetries(test.thumbnails):
        for row, column, bits in _near_pairs(hash_bits(turned), hashes):
            correlation = float((turned[row] * training.thumbnails[column]).sum())
            known = best.get((row, column))
            if correlation >= NEAR_CORRELATION and (known is None or correlation > known.correlation):
                names = training.names[column], test.names[row]
                best[row, column] = Leak(*names, bits, round(correlation, 4))
    return sorted(best.values(), key=lambda leak: (leak.test, -leak.correlation))


def thumbnail(pixels: Pixels) -> NDArray[np.float32]:
    """Grey (32,32) by area means, mean 0, norm 1 (0 for a flat photo). Large photos are subsampled first."""
    from PIL import Image

    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    thin = pixels[::step, ::step].astype(np.float32)
    grey = thin @ np.array(FULL_RANGE_LUMA, np.float32) if thin.shape[2] == 3 else thin[..., 0]
    small = np.asarray(Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    centred = small - small.mean()
    norm = float(np.linalg.norm(centred))
    return np.asarray(centred / norm if norm > 1 else np.zeros_like(centred), np.float32)


def hash_bits(thumbnails: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The perceptual hash: which of the 8x8 lowest DCT coefficients lie above their median, (n,).

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1; the
    median leaves the mean (DC) out.
    """
    from scipy.fft import dctn

    low = dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :HASH_SIDE, :HASH_SIDE].reshape(len(thumbnails), -1)
    median = np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(low > median, axis=1).view(np.uint64)[:, 0]


def symmetries(thumbnails: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The eight ways to turn and mirror (n,32,32)."""
    turned = [np.rot90(thumbnails, turns, axes=(1, 2)) for turns in range(4)]
    return turned + [flipped[:, :, ::-1] for flipped in turned]


def _near_pairs(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Iterable[tuple[int, int, int]]:
    """(place in one, place in other, Hamming distance) of all pairs up to `NEAR_BITS` apart."""
    rows = max(1, _AT_ONCE // len(other))
    for start in range(0, len(one), rows):
        bits = np.bitwise_count(one[start : start + rows, None] ^ other[None])
        for row, column in np.argwhere(bits <= NEAR_BITS):
            yield start + int(row), int(column), int(bits[row, column])
