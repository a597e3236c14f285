"""DND, the Darmstadt Noise Dataset: 50 noisy photos of four cameras; only its server has the clean ones.

T. Plötz, S. Roth, "Benchmarking Denoising Algorithms with Real Photographs", CVPR 2017. Enters: the unpacked
archive (`info.mat`, `images_srgb/0001.mat` … `0050.mat`; MATLAB 7.3, which is HDF5). Leaves: the 1,000 crops
of 512x512 that are evaluated, as 16-bit images, to restore or for training without clean photos. From the
restored crops `python -m restora.data.dnd RESTORED SUBMISSION` writes the files that the server takes.

Note: HDF5 has MATLAB's axes in reverse, so a photo is (3,W,H) there; boxes count from 1 and include both
ends.

Legend: H height, W width, h w of a crop.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restora.data.locking import sole_process
from restora.data.packing import PhotoFile
from restora.data.progress import progress
from restora.data.real_pairs import RealPhotos
from restora.data.sources import Holds, Split
from restora.files import write_whole
from restora.photos.errors import DataError, DecodingError
from restora.photos.files import Photo, read_photo
from restora.registry import register

if TYPE_CHECKING:
    import h5py

PHOTOS, CROPS = 50, 20
_FOLDER = "crops"


@register("source", "dnd")
class DND(RealPhotos):
    """The crops of DND, noisy only; those of `val_fraction` of the 50 photos choose the checkpoint."""

    name = "dnd"
    paired = False
    holds: Holds = "degraded"
    layout = "info.mat and images_srgb/0001.mat to 0050.mat"
    remedy = "; `restora prepare data=dnd` then writes their crops"

    def photos(self, split: Split) -> list[PhotoFile]:
        if split == "test":
            return []
        crops = sorted((self.existing_root() / _FOLDER).glob("????_??.png"))
        chosen = self._share([crop.name[:4] for crop in crops], split) if crops else set()
        return [PhotoFile(crop.stem, crop) for crop in crops if crop.name[:4] in chosen]

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        """Writes the crops that are not there yet as PNG files, then checks."""
        root = self.existing_root()
        if unwritten(root, root / _FOLDER):
            with sole_process(root / ".crops.lock", doing=f"writing the crops of {root}"):
                write_crops(root, root / _FOLDER)
        super().obtain(tracks=tracks, keep_archives=keep_archives)


def write_crops(root: Path, folder: Path) -> None:
    """The crops of all photos as `0001_01.png` to `0050_20.png`, 16 bits. Raises `DataError`."""
    missing = unwritten(root, folder)
    folder.mkdir(exist_ok=True)
    with progress("writing crops", len(missing)) as advance:
        for file, places in missing.items():
            with _opened(file) as photo:
                for place, box in places.items():
                    _write(_crop(photo, box, file), place)
            advance(1)


def unwritten(root: Path, folder: Path) -> dict[Path, dict[Path, NDArray[np.intp]]]:
    """The photos whose crops are not all there, each with the places and the boxes of its crops."""
    with _opened(root / "info.mat") as info:
        boxes = _boxes(info, root / "info.mat")
    crops = {
        root / "images_srgb" / f"{number:04}.mat": {
            folder / f"{number:04}_{crop:02}.png": box for crop, box in enumerate(of_photo, 1)
        }
        for number, of_photo in enumerate(boxes, 1)
    }
    return {file: places for file, places in crops.items() if not all(map(Path.exists, places))}


@contextmanager
def _opened(file: Path) -> Iterator["h5py.File"]:
    try:
        import h5py
    except ImportError as error:
        raise DataError("DND's files are HDF5, which the package h5py reads: pip install h5py") from error
    if not file.is_file():
        raise DataError(f"{file} does not exist, expected {DND.layout}: set data.source.root=FOLDER")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file} is damaged, or no file of MATLAB 7.3 ({error}): fetch it again") from error
    with opened:
        yield opened


def _boxes(info: "h5py.File", file: Path) -> list[NDArray[np.intp]]:
    """Top, left, bottom, right of each photo's crops, (crops,4), from 1 and both ends included."""
    try:
        references = np.asarray(info["info/boundingboxes"]).reshape(-1)
        boxes = [np.asarray(info[one]).T.astype(np.intp) for one in references]
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise DataError(f"{file} has no info.boundingboxes ({error}): fetch it again") from error
    if not boxes or any(box.ndim != 2 or box.shape[1] != 4 or len(box) == 0 for box in boxes):
        shapes = sorted({box.shape for box in boxes})
        raise DataError(f"{file}: expected boundingboxes of (crops,4), got {shapes}: fetch it again")
    return boxes


def _crop(photo: "h5py.File", box: NDArray[np.intp], file: Path) -> NDArray[np.float64]:
    """One crop (h,w,3) on the [0,1] scale."""
    values: Any = photo.get("InoisySRGB")
    if getattr(values, "ndim", 0) != 3 or values.shape[0] != 3 or values.dtype.kind != "f":
        got = "nothing" if values is None else f"{values.dtype} {values.shape}"
        raise DataError(f"{file}: expected InoisySRGB, (3,W,H) of decimal numbers, got {got}: fetch it again")
    top, left, bottom, right = (int(side) for side in box)
    if not (0 < top <= bottom <= values.shape[2] and 0 < left <= right <= values.shape[1]):
        raise DataError(
            f"{file}: the crop {box.tolist()} is not in the photo of {values.shape[2]}x{values.shape[1]}"
        )
    try:
        crop: NDArray[np.float64] = values[:, left - 1 : right, top - 1 : bottom].T.astype(np.float64)
    except OSError as error:
        raise DataError(f"{file} is damaged ({error}): fetch it again") from error
    return crop


def _write(crop: NDArray[np.float64], place: Path) -> None:
    deep = np.round(np.clip(np.nan_to_num(crop), 0, 1) * 65535).astype(np.uint16)
    write_whole(place, Photo(deep, None).encode("PNG"))


def write_submission(restored: Path, submission: Path, *, photos: int = PHOTOS, crops: int = CROPS) -> None:
    """One .mat file per photo with its restored crops, as the authors' `bundle_submissions_srgb` writes it.

    `restored` holds pictures by the names of the crops, in any format. Raises `DataError` where one is
    missing.
    """
    from scipy.io import savemat

    found = {path.stem: path for path in sorted(restored.glob("????_??.*"))}
    wanted = [[f"{photo:04}_{crop:02}" for crop in range(1, crops + 1)] for photo in range(1, photos + 1)]
    missing = [name for names in wanted for name in names if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {photos * crops} restored crops are not in {restored}, the first is "
            f"{missing[0]}.png: restore the folder {_FOLDER}/ of DND first"
        )
    submission.mkdir(parents=True, exist_ok=True)
    for number, names in enumerate(wanted, 1):
        cells = np.empty(crops, dtype=object)
        for place, name in enumerate(names):
            cells[place] = _decoded(found[name])
        content = {"Idenoised": cells, "israw": False, "eval_version": "1.0"}
        savemat(submission / f"{number:04}.mat", content)


def _decoded(path: Path) -> NDArray[np.float32]:
    """(h,w,3) on the [0,1] scale."""
    try:
        pixels = read_photo(path).pixels
    except DecodingError as error:
        raise DataError(f"{path}: {error}") from error
    if pixels.shape[2] != 3:
        raise DataError(f"{path} has {pixels.shape[2]} channel(s), the crops of DND have 3")
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m restora.data.dnd RESTORED SUBMISSION`."""
    parser = argparse.ArgumentParser(
        prog="python -m restora.data.dnd", description="The files that DND's server takes, of restored crops."
    )
    parser.add_argument("restored", type=Path, help="the folder of restored crops (0001_01.png, ...)")
    parser.add_argument("submission", type=Path, help="the folder to write 0001.mat to 0050.mat to")
    given = parser.parse_args(argv)
    try:
        write_submission(given.restored, given.submission)
    except DataError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{PHOTOS} files in {given.submission}: send the folder as it is")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
