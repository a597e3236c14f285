"""DND: crops out of MATLAB's files, noisy photos to learn from, and what its server takes."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from restora.data import dnd
from restora.data.dnd import DND, main, write_submission
from restora.photos.errors import DataError
from restora.photos.files import read_photo

PHOTOS, CROPS, SIDE = 4, 3, 8
BOXES = np.array([[1, 1, 8, 8], [3, 11, 10, 18], [13, 23, 20, 30]])  # MATLAB's: from 1, both ends
HEIGHT, WIDTH = 20, 30


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """The archive with smaller photos, as MATLAB 7.3 writes it, and the photos (n,H,W,3)."""
    photos = np.random.default_rng(0).random((PHOTOS, HEIGHT, WIDTH, 3)).astype(np.float32)
    root = tmp_path / "DND"
    (root / "images_srgb").mkdir(parents=True)
    for number, photo in enumerate(photos, 1):
        with h5py.File(root / f"images_srgb/{number:04}.mat", "w", userblock_size=512) as file:
            file["InoisySRGB"] = photo.T
    with h5py.File(root / "info.mat", "w", userblock_size=512) as file:
        references = file.create_dataset("info/boundingboxes", (1, PHOTOS), dtype=h5py.ref_dtype)
        for number in range(PHOTOS):
            made = file.create_dataset(f"#refs#/{number}", data=BOXES.T.astype(float))
            references[0, number] = made.ref
    return root, photos


def test_crops_are_written_and_learnt_from_without_clean_photos(tree: tuple[Path, np.ndarray]) -> None:
    root, photos = tree
    source = DND(root=root, val_fraction=0.25)
    with pytest.raises(DataError, match=r"no photos for train .*restora prepare data=dnd"):
        source.check()
    source.obtain()
    train, val = source.photos("train"), source.photos("val")
    assert (len(train), len(val), source.photos("test")) == (9, 3, [])
    assert source.holds == "degraded"
    assert not source.paired
    assert not {one.name[:4] for one in train} & {one.name[:4] for one in val}
    (second,) = [one for one in [*train, *val] if one.name == "0002_02"]
    pixels = read_photo(second.clean).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_allclose(pixels / 65535, photos[1, 2:10, 10:18], atol=1e-5)
    before = second.clean.stat().st_mtime_ns
    (root / "crops/0001_01.png").unlink()
    source.obtain()  # writes what is missing alone
    assert (root / "crops/0001_01.png").is_file()
    assert second.clean.stat().st_mtime_ns == before
    (root / ".crops.lock").unlink()
    source.obtain()  # nothing is missing, and the folder may be one that cannot be written to
    assert not (root / ".crops.lock").exists()


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"info\.mat does not exist, expected info\.mat and images_srgb"):
        DND(root=tmp_path).obtain()
    assert not list(tmp_path.iterdir())


def test_the_submission_is_what_the_server_takes(
    tree: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, photos = tree
    dnd.write_crops(root, root / "crops")
    out = tmp_path / "submission"
    write_submission(root / "crops", out, photos=PHOTOS, crops=CROPS)
    assert sorted(path.name for path in out.iterdir()) == [f"{n:04}.mat" for n in range(1, PHOTOS + 1)]
    content = loadmat(out / "0003.mat")
    cells = content["Idenoised"].ravel()
    assert cells.shape == (CROPS,)
    assert cells[2].dtype == np.float32
    np.testing.assert_allclose(cells[2], photos[2, 12:20, 22:30], atol=1e-5)
    assert (content["israw"].item(), content["eval_version"].item()) == (False, "1.0")

    grey = tmp_path / "grey"
    shutil.copytree(root / "crops", grey)
    Image.new("L", (8, 8)).save(grey / "0001_01.png")
    with pytest.raises(DataError, match=r"0001_01.png has 1 channel"):
        write_submission(grey, out, photos=1, crops=CROPS)
    assert main([str(root / "crops"), str(out)]) == 1  # of 4 photos, and DND has 50
    assert "988 of 1000 restored crops are not in" in capsys.readouterr().err


def broken(root: Path, what: str) -> None:
    if what == "no info":
        (root / "info.mat").unlink()
    elif what == "no HDF5":
        (root / "info.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
    elif what == "torn":
        data = (root / "info.mat").read_bytes()
        (root / "info.mat").write_bytes(data[: len(data) // 2])
    elif what == "no boxes":
        with h5py.File(root / "info.mat", "w") as file:
            file["info/other"] = 1.0
    elif what == "no photo":
        (root / "images_srgb/0002.mat").unlink()
    elif what == "another array":
        with h5py.File(root / "images_srgb/0002.mat", "w") as file:
            file["InoisySRGB"] = np.zeros((3, 4, 5), np.uint8)
    elif what == "small photo":
        with h5py.File(root / "images_srgb/0002.mat", "w") as file:
            file["InoisySRGB"] = np.zeros((3, 9, 9), np.float32)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no info", r"info.mat does not exist, expected info.mat and images_srgb"),
        ("no HDF5", r"info.mat is damaged, or no file of MATLAB 7.3"),
        ("torn", r"info.mat .*fetch it again"),
        ("no boxes", r"info.mat has no info.boundingboxes"),
        ("no photo", r"0002.mat does not exist"),
        ("another array", r"0002.mat: expected InoisySRGB, \(3,W,H\) of decimal numbers, got uint8"),
        ("small photo", r"0002.mat: the crop \[3, 11, 10, 18\] is not in the photo of 9x9"),
    ],
)
def test_a_broken_archive_is_named(tree: tuple[Path, np.ndarray], what: str, said: str) -> None:
    root, _ = tree
    broken(root, what)
    with pytest.raises(DataError, match=said):
        DND(root=root).obtain()
