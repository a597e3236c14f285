"""Training crops per second, in one process and as ready batches: the packed store against decoding files.

    python benchmarks/crops.py [--patch 256] [--batch 16] [--seconds 2] [--rounds 5] [--folder PHOTOS]

Against what people do: decode the whole PNG and cut it (OpenCV, Pillow), and BasicSR's way, which first cuts
the photos into overlapping sub-images of 480 pixels and decodes one of those per crop. All of them turn the
crop and stack a batch with `default_collate`, as their data sets do. Photos are those of `--folder`, or
mosaics of scikit-image's sample photos in the size of DIV2K's. Runs are interleaved; the median of the rounds
counts. All files are in the page cache after the first round. The store gives uint8, which becomes float on
the device; the others give float, so the line `made float` adds that step on this processor.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timing import Row, machine, parser, print_table, save_rows
from torch.utils.data import default_collate

from restora.data.crops import CropBatches
from restora.data.degrading import to_float
from restora.data.packing import PhotoFile, pack
from restora.data.schedule import CropSchedule, Stage
from restora.data.sources import SPLITS, SamplePhotos
from restora.photos.reading import list_photos, read_photo

HEIGHT, WIDTH, PHOTOS = 1356, 2040, 8
SUB_IMAGE, SUB_STEP = 480, 240
Pixels = NDArray[np.uint8]


def main() -> None:
    """Prints the crops per second of each way, and how many times faster the store is."""
    options = _options()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = list_photos(options.folder) if options.folder else mosaics(folder / "photos")
        ways = {
            "decode PNG, OpenCV": _decoding(photos, options, lambda path: cv2.imread(str(path))),
            "decode PNG, Pillow": _decoding(photos, options, _pillow),
            "sub-images of 480": _decoding(
                _sub_images(photos, folder), options, lambda p: cv2.imread(str(p))
            ),
            "packed store": _stored(photos, folder, options),
            "packed store, not turned": _stored(photos, folder, options, geometry="none"),
            "packed store, made float": map(to_float, _stored(photos, folder, options)),
        }
        rates = _measure(ways, options)
    store = rates["packed store"]
    title = f"crops of {options.patch}x{options.patch} per second, batches of {options.batch}, {machine()}"
    rows = []
    for way, taken in rates.items():
        low, _, high = statistics.quantiles(taken, n=4, method="inclusive")
        cells = [
            f"{statistics.median(taken):,.1f}",
            f"{low:,.1f}-{high:,.1f}",
            f"{_faster(store, taken):,.0f}",
        ]
        rows.append([way, *cells])
    print_table(title, ["", "crops/s", "quartiles", "store is x"], rows)
    made = [
        Row(f"crops: store against {way}", f"{_faster(store, rates[way]):,.0f} x", f">= {target} x", met)
        for way, target in (("decode PNG, OpenCV", 600), ("sub-images of 480", 80))
        for met in [_faster(store, rates[way]) >= target]
    ]
    save_rows(made, options.rows)


def _faster(store: list[float], other: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(store, other, strict=True))


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--patch", type=int, default=256)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--seconds", type=float, default=2.0)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--folder", type=Path)
    options = made.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 1.0
    return options


def mosaics(folder: Path) -> list[Path]:
    """PNG files of DIV2K's size, mosaics of natural photos."""
    folder.mkdir()
    source = SamplePhotos()
    samples = [read_photo(photo.clean) for split in SPLITS for photo in source.photos(split)]
    paths = []
    for number in range(PHOTOS):
        rows: list[Pixels] = []
        turned = [np.rot90(sample, 2) if number & 1 else sample for sample in samples]
        for row in range(4):
            order = [turned[(number + row + column) % len(turned)] for column in range(6)]
            height = min(part.shape[0] for part in order)
            rows.append(np.concatenate([part[:height] for part in order], axis=1)[:, :WIDTH])
        paths.append(folder / f"{number}.png")
        mosaic = np.tile(np.concatenate(rows), (2, 1, 1))[:HEIGHT]
        assert mosaic.shape == (HEIGHT, WIDTH, 3)
        Image.fromarray(mosaic).save(paths[-1])
    return paths


def _sub_images(photos: list[Path], folder: Path) -> list[Path]:
    """Each photo as overlapping PNG files of 480 pixels, the last of a row flush with the edge."""
    target = folder / "sub_images"
    target.mkdir()
    paths = []
    for photo in photos:
        pixels = cv2.imread(str(photo))
        for top in _starts(pixels.shape[0]):
            for left in _starts(pixels.shape[1]):
                paths.append(target / f"{photo.stem}_{top}_{left}.png")
                cv2.imwrite(str(paths[-1]), pixels[top : top + SUB_IMAGE, left : left + SUB_IMAGE])
    return paths


def _starts(length: int) -> list[int]:
    starts = list(range(0, length - SUB_IMAGE + 1, SUB_STEP))
    return starts if starts[-1] == length - SUB_IMAGE else [*starts, length - SUB_IMAGE]


def _pillow(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def _decoding(
    photos: list[Path], options: argparse.Namespace, decode: Callable[[Path], Pixels]
) -> Iterator[torch.Tensor]:
    """Batches of float crops, each from a photo that is decoded for it, flipped and transposed at random."""
    random, size = np.random.default_rng(0), options.patch

    def crop() -> torch.Tensor:
        pixels = decode(photos[random.integers(len(photos))])
        top, left = (random.integers(side - size + 1) for side in pixels.shape[:2])
        cut = pixels[top : top + size, left : left + size].astype(np.float32) / 255
        if random.random() < 0.5:
            cut = cv2.flip(cut, 1)
        if random.random() < 0.5:
            cut = cv2.flip(cut, 0)
        if random.random() < 0.5:
            cut = cv2.transpose(cut)
        return torch.from_numpy(cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).transpose(2, 0, 1))

    while True:
        yield default_collate([crop() for _ in range(options.batch)])


def _stored(
    photos: list[Path], folder: Path, options: argparse.Namespace, geometry: str = "d4"
) -> Iterator[torch.Tensor]:
    """Batches of uint8 crops from the packed store."""
    files = [PhotoFile(path.stem, path) for path in photos]
    store = pack(files, store_dir=folder / "packed", name="benchmark", channels="rgb")
    schedule = CropSchedule(seed=0, photos=len(store), stages=[Stage(0, options.patch, options.batch)])
    batches = CropBatches(
        store=store,
        photos=range(len(store)),
        schedule=schedule,
        paired=False,
        scale=1,
        geometry=geometry,  # type: ignore[arg-type]
        transforms=(),
    )
    number = 0
    while True:
        yield batches[number]["clean"]
        number += 1


def _measure(ways: dict[str, Iterator[torch.Tensor]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Crops per second of each way in every round; within a round all ways have the same time."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for batches in ways.values():
        next(batches)
    for _ in range(options.rounds):
        for name, batches in ways.items():
            started, crops = time.perf_counter(), 0
            while time.perf_counter() - started < options.seconds:
                crops += next(batches).shape[0]
            rates[name].append(crops / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    main()
