"""A packed store that was damaged on the disk is recognised, named and packed again."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from restora.data.packing import PhotoFile, pack
from restora.data.store import INDEX, PIXELS, DamagedStore, PhotoStore

MakePhotos = Callable[..., list[PhotoFile]]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0x55
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "flipped": flip,
}


@pytest.mark.parametrize("file", [INDEX, PIXELS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_named_and_packed_again(
    tmp_path: Path, make_photos: MakePhotos, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    photos = make_photos(3)
    options = {"store_dir": tmp_path / "packed", "name": "x", "channels": "rgb"}
    before = pack(photos, **options)
    pixels = [before.clean(index).copy() for index in range(3)]
    DAMAGES[damage](before.folder / file)

    after = pack(photos, **options)

    assert file in caplog.text
    assert "packed again" in caplog.text
    for index in range(3):
        np.testing.assert_array_equal(after.clean(index), pixels[index])
    after.verify(whole=True)


def test_an_index_that_says_something_else_is_refused(tmp_path: Path, make_photos: MakePhotos) -> None:
    store = pack(make_photos(2), store_dir=tmp_path, name="x", channels="rgb")
    path = store.folder / INDEX
    index = json.loads(path.read_text())
    index["photos"][0]["name"] = "another"
    path.write_text(json.dumps(index))
    with pytest.raises(DamagedStore, match=r"index\.json"):
        PhotoStore(folder=store.folder)


def test_the_fingerprint_is_of_the_photos_not_of_their_place(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = make_photos(3)
    moved = []
    for photo in photos:
        copy = tmp_path / "elsewhere" / photo.clean.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(photo.clean.read_bytes())
        moved.append(PhotoFile(photo.name, copy))
    here = pack(photos, store_dir=tmp_path / "a", name="x", channels="rgb")
    there = pack(moved, store_dir=tmp_path / "b", name="y", channels="rgb")
    fewer = pack(photos[:2], store_dir=tmp_path / "c", name="x", channels="rgb")
    assert here.fingerprint == there.fingerprint != fewer.fingerprint
