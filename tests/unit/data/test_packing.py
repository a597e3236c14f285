"""The packed store holds the photos, survives kills and races, and names what it leaves out."""

import functools
import json
import logging
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restora.data.locking import sole_process
from restora.data.packing import PhotoFile, Reader, pack
from restora.data.store import INDEX, PIXELS, PhotoStore
from restora.photos.errors import DataError, PhotoError
from restora.photos.reading import Pixels, read_photo

MakePhotos = Callable[..., list[PhotoFile]]
Start = Callable[..., "subprocess.Popen[str]"]
PACK = """
import logging, sys
from pathlib import Path
from restora.data.packing import PhotoFile, pack

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    photos = [PhotoFile(path.stem, path) for path in sorted(Path(sys.argv[1]).iterdir())]
    store = pack(photos, store_dir=Path(sys.argv[2]), name="x", channels="rgb", processes=int(sys.argv[3]))
    print(store.folder)
"""


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize(("count", "processes"), [(5, 1), (20, 2)])
@pytest.mark.slow
def test_every_photo_is_there(
    tmp_path: Path, make_photos: MakePhotos, channels: str, count: int, processes: int
) -> None:
    photos = make_photos(count)
    store = pack(photos, store_dir=tmp_path / "packed", name="x", channels=channels, processes=processes)
    assert [entry.name for entry in store.entries] == [photo.name for photo in photos]
    assert not store.left_out
    for index, photo in enumerate(photos):
        np.testing.assert_array_equal(store.clean(index), read_photo(photo.clean, channels))


def test_a_store_is_built_once_and_again_when_photos_change(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = make_photos(3)
    options = {"store_dir": tmp_path / "packed", "name": "x"}
    store = pack(photos, channels="rgb", **options)
    built = (store.folder / PIXELS).stat().st_mtime_ns
    assert pack(photos, channels="rgb", **options).folder == store.folder
    assert (store.folder / PIXELS).stat().st_mtime_ns == built
    assert pack(photos, channels="gray", **options).folder != store.folder
    assert pack(photos[:2], channels="rgb", **options).folder != store.folder
    Image.new("RGB", (40, 40)).save(photos[0].clean)
    changed = pack(photos, channels="rgb", **options)
    assert changed.folder != store.folder
    assert (changed.clean(0) == 0).all()


def test_earlier_packings_are_named(
    tmp_path: Path, make_photos: MakePhotos, caplog: pytest.LogCaptureFixture
) -> None:
    """With what they take; those of data sets whose names only begin alike are none."""
    caplog.set_level(logging.INFO)
    photos, options = make_photos(3), {"store_dir": tmp_path / "packed", "channels": "rgb"}
    pack(photos, name="x-y", **options)
    pack(photos, name="x", **options)
    assert "earlier packing" not in caplog.text
    pack(photos[:2], name="x", **options)
    assert "of 1 earlier packing of other photos or options: delete what no run needs" in caplog.text


def test_photos_that_were_moved_are_where_they_are(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos, options = make_photos(3), {"store_dir": tmp_path / "packed", "name": "x", "channels": "rgb"}
    store = pack(photos, **options)
    folder = photos[0].clean.parent.rename(tmp_path / "elsewhere")
    moved = [PhotoFile(photo.name, folder / photo.clean.name) for photo in photos]
    again = pack(moved, **options)
    assert again.folder == store.folder
    assert [entry.path for entry in again.entries] == [str(photo.clean) for photo in moved]


@pytest.mark.parametrize("pairs", [False, True], ids=["photos", "pairs"])
def test_photos_of_another_folder_are_not_taken_for_those_packed(tmp_path: Path, pairs: bool) -> None:
    """Although their names, sizes and times are equal, as those of unpacked archives of BMP files can be."""
    options = {"store_dir": tmp_path / "packed", "name": "x", "channels": "rgb"}
    found = []
    for grey in (10, 200, 10):
        folder = tmp_path / f"photos{len(found)}"
        folder.mkdir()
        files = [folder / f"{number}.bmp" for number in range(9)]
        for number, file in enumerate(files):
            Image.new("RGB", (8, 6), (grey + number, 0, 0)).save(file)
            os.utime(file, (1, 1))
        of_it = [PhotoFile(file.stem, file, file if pairs else None) for file in files]
        found.append(pack(of_it, **options))
        assert [found[-1].clean(at)[0, 0, 0] for at in range(9)] == list(range(grey, grey + 9))
        assert pack(of_it, **options).folder == found[-1].folder
    assert found[0].folder == found[2].folder != found[1].folder


@pytest.mark.parametrize("changed", ["degraded folder", "folder at the same place", "one photo"])
def test_exchanged_photos_are_not_taken_for_those_packed(tmp_path: Path, changed: str) -> None:
    """Other files of the same names, sizes and times: in another folder of degraded photos, or in place."""
    options = {"store_dir": tmp_path / "packed", "name": "x", "channels": "rgb"}

    def drawn(half: Path, grey: int) -> list[Path]:
        half.mkdir()
        files = [half / f"{number}.bmp" for number in range(9)]
        for number, file in enumerate(files):
            Image.new("RGB", (8, 6), (grey + number, 0, 0)).save(file)
            os.utime(file, (1, 1))
        return files

    clean, degraded = drawn(tmp_path / "clean", 10), drawn(tmp_path / "degraded", 100)
    other = drawn(tmp_path / "other", 200)
    first = pack([PhotoFile(a.stem, a, b) for a, b in zip(clean, degraded, strict=True)], **options)
    if changed == "one photo":
        other[5].rename(degraded[5])
    elif changed == "folder at the same place":
        degraded[0].parent.rename(tmp_path / "earlier")
        other[0].parent.rename(degraded[0].parent)
    else:
        degraded = other
    files = [PhotoFile(a.stem, a, b) for a, b in zip(clean, degraded, strict=True)]
    again = pack(files, **options)
    assert again.folder != first.folder
    assert [int(again.degraded(at)[0, 0, 0]) for at in range(9)] == [
        int(read_photo(file, "rgb")[0, 0, 0]) for file in degraded
    ]
    assert pack(files, **options).folder == again.folder


@pytest.mark.parametrize("file", [PIXELS, INDEX])
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    ],
    ids=["missing", "empty", "truncated", "garbage"],
)
def test_a_damaged_store_is_named_and_packed_again(
    damage: Callable[[Path], object],
    file: str,
    tmp_path: Path,
    make_photos: MakePhotos,
    caplog: pytest.LogCaptureFixture,
) -> None:
    photos, options = make_photos(2), {"store_dir": tmp_path / "packed", "name": "x", "channels": "rgb"}
    folder = pack(photos, **options).folder
    before = (folder / PIXELS).read_bytes()
    damage(folder / file)
    assert pack(photos, **options).folder == folder
    assert (folder / PIXELS).read_bytes() == before
    assert file in caplog.text


def test_a_store_travels_without_its_pixels(tmp_path: Path, make_photos: MakePhotos) -> None:
    store = pack(make_photos(3, side=200), store_dir=tmp_path, name="x", channels="rgb")
    first = store.clean(0).copy()
    sent = pickle.dumps(store)
    assert len(sent) < 10_000 < first.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).clean(0), first)


def test_pixels_cannot_be_written(tmp_path: Path, make_photos: MakePhotos) -> None:
    store = pack(make_photos(1), store_dir=tmp_path, name="x", channels="rgb")
    with pytest.raises(ValueError, match="read-only"):
        store.clean(0)[0] = 0


@pytest.mark.parametrize("count", [4, 20])
def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    tmp_path: Path, make_photos: MakePhotos, count: int
) -> None:
    photos = make_photos(count)
    photos[1].clean.write_bytes(photos[1].clean.read_bytes()[:900])
    photos[2].clean.write_text("no photo at all")
    gone = PhotoFile("gone", tmp_path / "gone.png")
    store = pack([*photos, gone], store_dir=tmp_path / "packed", name="x", channels="rgb", processes=2)
    assert len(store) == count - 2
    reasons = {row.path: row.reason for row in store.left_out}
    assert set(reasons) == {str(photos[1].clean), str(photos[2].clean), str(gone.clean)}
    assert "truncated" in reasons[str(photos[1].clean)]
    assert "not a photo" in reasons[str(photos[2].clean)]
    assert "does not exist" in reasons[str(gone.clean)]
    index = json.loads((store.folder / INDEX).read_text())
    assert {row["path"] for row in index["left_out"]} == set(reasons)
    np.testing.assert_array_equal(store.clean(1), read_photo(photos[3].clean))


def test_files_that_can_be_read_by_now_are_used(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(3)
    photos[0].clean.write_text("no photo at all")
    large = tmp_path / "large.png"
    Image.new("RGB", (200, 200)).save(large)
    photos = [*photos, PhotoFile("large", large)]
    packed = functools.partial(pack, photos, store_dir=tmp_path / "packed", name="x", channels="rgb")
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "0.03")
    few = packed()
    assert {Path(row.path) for row in few.left_out} == {photos[0].clean, large}
    assert packed().folder == few.folder
    monkeypatch.delenv("RESTORA_MAX_MEGAPIXELS")
    more = packed()
    assert [Path(row.path) for row in more.left_out] == [photos[0].clean]
    assert len(more) == len(few) + 1
    np.testing.assert_array_equal(
        few.clean(0), read_photo(photos[1].clean)
    )  # still stands for those who use it
    assert packed().folder == more.folder


def test_a_reader_that_fails_now_and_then_packs_no_more_than_twice(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos, calls = make_photos(2), dict[Path, int]()

    def read(path: Path, channels: int) -> Pixels:
        calls[path] = calls.get(path, 0) + 1
        if path == photos[0].clean and calls[path] % 2:
            raise PhotoError(path, "needs more memory than there is")
        return read_photo(path, channels)

    for _ in range(3):
        pack(photos, store_dir=tmp_path / "packed", name="x", channels=3, reader=Reader(read=read))
    assert len([path for path in (tmp_path / "packed").iterdir() if path.is_dir()]) == 2


def test_nothing_usable_is_an_error_and_leaves_no_store(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = make_photos(2)
    for photo in photos:
        photo.clean.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 files.*0000.png: is empty"):
        pack(photos, store_dir=tmp_path / "packed", name="x", channels="rgb")
    assert [path.name for path in (tmp_path / "packed").iterdir() if path.is_dir()] == []


def test_pairs_share_a_clean_photo_and_must_fit(tmp_path: Path, make_photos: MakePhotos) -> None:
    (clean, other), small = make_photos(2, side=40), make_photos(3, side=20, folder="small")
    Image.new("RGB", (20, 20), "red").save(small[0].clean)
    Image.new("RGB", (20, 20), "blue").save(small[1].clean)
    Image.new("RGB", (30, 20)).save(small[2].clean)
    pairs = [
        PhotoFile("a1", clean.clean, small[0].clean),
        PhotoFile("a2", clean.clean, small[1].clean),
        PhotoFile("b", other.clean, small[2].clean),
    ]
    store = pack(pairs, store_dir=tmp_path / "packed", name="x", channels="rgb", scale=2)
    assert [entry.name for entry in store.entries] == ["a1", "a2"]
    assert store.entries[0].clean == store.entries[1].clean
    assert store.degraded(0)[0, 0].tolist() == [255, 0, 0]
    assert store.degraded(1)[0, 0].tolist() == [0, 0, 255]
    (wrong,) = store.left_out
    assert wrong.path == str(small[2].clean)
    assert "30x20" in wrong.reason
    assert "42x41" in wrong.reason


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_killed_in_the_middle(
    tmp_path: Path, make_photos: MakePhotos, start_python: Start, processes: int
) -> None:
    photos = make_photos(1, side=900)
    for index in range(1, 40):
        (photos[0].clean.parent / f"{index:04}.png").hardlink_to(photos[0].clean)
    packed = tmp_path / "packed"
    process = start_python(PACK, photos[0].clean.parent, packed, processes)

    def begun() -> bool:
        files = list(packed.glob(f".x-*/{PIXELS}"))
        return bool(files) and files[0].stat().st_blocks * 512 > 2 * 900 * 900 * 3

    wait_for(begun)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= (processes if processes > 1 else 0)
    assert not list(packed.glob("x-*")), "a store that is not whole has its final name"
    wait_for(lambda: not any(is_running(pid) for pid in workers))

    files = [PhotoFile(path.stem, path) for path in sorted(photos[0].clean.parent.iterdir())]
    store = pack(files, store_dir=packed, name="x", channels="rgb")
    assert len(store) == 40
    for index in (0, 21, 39):
        np.testing.assert_array_equal(store.clean(index), read_photo(photos[0].clean))
    assert [path for path in packed.iterdir() if path.is_dir()] == [store.folder]


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_second_process_waits_and_says_so(
    tmp_path: Path, make_photos: MakePhotos, start_python: Start
) -> None:
    photos = make_photos(4)
    packed = tmp_path / "packed"
    known = pack(photos, store_dir=tmp_path / "elsewhere", name="x", channels="rgb").folder.name
    with sole_process(packed / f".{known}.lock", doing="testing"):
        process = start_python(PACK, photos[0].clean.parent, packed, 1)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "another process is packing" in line
        assert known in line
        os.rename(tmp_path / "elsewhere" / known, packed / known)
        built = (packed / known / PIXELS).stat().st_mtime_ns
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.strip() == str(packed / known)
    assert (packed / known / PIXELS).stat().st_mtime_ns == built


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path, make_photos: MakePhotos, start_python: Start) -> None:
    photos = make_photos(30, side=300)
    packed = tmp_path / "packed"
    processes = [start_python(PACK, photos[0].clean.parent, packed, 1) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1]
    store = PhotoStore(folder=Path(printed[0]))
    assert len(store) == 30
    np.testing.assert_array_equal(store.clean(29), read_photo(photos[29].clean))
    assert [path for path in packed.iterdir() if path.is_dir()] == [store.folder]


def test_what_interrupted_packings_of_other_photos_left_is_removed(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    """A store whose photos have changed is never packed again, but its draft may be large."""
    for name in ("dead", "alive"):
        (tmp_path / "packed" / f".{name}.draft-1").mkdir(parents=True)
    with sole_process(tmp_path / "packed" / ".alive.lock", doing="packing"):
        pack(make_photos(2), store_dir=tmp_path / "packed", name="new", channels=3)
    assert [path.name for path in (tmp_path / "packed").glob(".*.draft-*")] == [".alive.draft-1"]
