"""Finding test photos, saying how to get them where they are missing, and getting them."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from archive_server import ArchiveServer, Plan, zipped
from PIL import Image

from restora.data.archives import CorruptArchive
from restora.evaluation.testsets import TestSet, find_photos, obtain_testsets
from restora.photos.errors import DataError


@pytest.fixture
def server():
    photos = {f"top-master/sets/{name}/{n}.png": png(n) for name, c in (("A", 3), ("b", 2)) for n in range(c)}
    with ArchiveServer({"master.zip": zipped({"top-master/": b"", **photos})}) as server:
        yield server


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def a_set(
    data_dir: Path, name: str, images: int, url: str = "http://127.0.0.1:9", folder: str = "A"
) -> TestSet:
    return TestSet(
        name=name,
        root=str(data_dir / "testsets" / name),
        images=images,
        archive=f"{url}/master.zip",
        folder=f"top-master/sets/{folder}",
    )


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_photos_are_sorted_and_other_files_left_out(tmp_path: Path) -> None:
    paths = [photo(tmp_path / name) for name in ("b.png", "a.jpg", "c.bmp")]
    (tmp_path / "readme.txt").write_text("no photo")
    photo(tmp_path / "low" / "a.png")
    assert find_photos(str(tmp_path)) == sorted(paths)


def test_a_single_subfolder_is_entered(tmp_path: Path) -> None:
    inside = photo(tmp_path / "Set5" / "HR" / "baby.png")
    assert find_photos(str(tmp_path)) == [inside]


def test_several_subfolders_must_be_chosen_from(tmp_path: Path) -> None:
    photo(tmp_path / "HR" / "baby.png")
    photo(tmp_path / "LR" / "baby.png")
    with pytest.raises(ValueError, match=r"HR, .*LR"):
        find_photos(str(tmp_path))


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_set_says_how_to_get_it(exists: bool, tmp_path: Path) -> None:
    root = tmp_path if exists else tmp_path / "Set12"
    with pytest.raises(ValueError, match=r"12 photos.*`restora prepare testsets=set12`.*benchmark\.root"):
        find_photos(str(root), a_set(tmp_path, "Set12", 12))
    with pytest.raises(ValueError, match=r"Own is at home; or set benchmark\.root"):
        find_photos(str(root), TestSet(name="Own", source="at home"))


def test_sets_of_one_archive_are_fetched_together(server: ArchiveServer, tmp_path: Path) -> None:
    sets = [a_set(tmp_path, "A", 3, server.url), a_set(tmp_path, "B", 2, server.url, "b")]
    server.plans = [Plan(cut=200)]
    obtain_testsets(sets)
    assert [request.range for request in server.requests] == [None, "bytes=200-"]
    assert [path.name for path in find_photos(str(sets[0].root), sets[0])] == ["0.png", "1.png", "2.png"]
    assert (tmp_path / "testsets" / "B" / "1.png").read_bytes() == png(1)
    obtain_testsets(sets)
    assert len(server.requests) == 2
    assert sorted(path.name for path in (tmp_path / "testsets").iterdir()) == [".download.lock", "A", "B"]


def test_an_archive_that_is_kept_is_not_fetched_again(server: ArchiveServer, tmp_path: Path) -> None:
    obtain_testsets([a_set(tmp_path, "A", 3, server.url)], keep_archives=True)
    assert (tmp_path / "testsets" / "top-master.zip").read_bytes() == server.files["master.zip"]
    obtain_testsets([a_set(tmp_path, "B", 2, server.url, "b")])
    assert len(server.requests) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_an_archive_that_the_user_placed_is_used_and_left(
    server: ArchiveServer, tmp_path: Path, whole: bool
) -> None:
    mine = tmp_path / "testsets" / "top-master.zip"
    mine.parent.mkdir()
    body = server.files["master.zip"][: None if whole else 300]
    mine.write_bytes(body)
    sets = [a_set(tmp_path, "A", 3, server.url), a_set(tmp_path, "B", 2, server.url, "b")]
    if whole:
        obtain_testsets(sets)
        assert len(find_photos(str(sets[1].root))) == 2
    else:
        with pytest.raises(CorruptArchive, match=r"top-master.zip was there already: move it away"):
            obtain_testsets(sets)
    assert mine.read_bytes() == body
    assert server.requests == []


def test_a_downloaded_archive_without_the_second_set_goes(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(CorruptArchive, match="holds 2 photos .* expected 3.*It was downloaded twice"):
        obtain_testsets([a_set(tmp_path, "A", 3, server.url), a_set(tmp_path, "B", 3, server.url, "b")])
    assert not (tmp_path / "testsets" / "top-master.zip").exists()


def test_a_set_of_another_number_of_photos_is_not_taken(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(
        CorruptArchive, match=r"holds 3 photos in top-master/sets/A, expected 4.*downloaded twice"
    ):
        obtain_testsets([a_set(tmp_path, "A", 4, server.url)])
    assert [path.name for path in (tmp_path / "testsets").iterdir()] == [".download.lock"]


def test_a_torn_archive_is_fetched_once_more(server: ArchiveServer, tmp_path: Path) -> None:
    whole = server.files["master.zip"]
    server.files["master.zip"] = whole[: len(whole) // 2]
    with pytest.raises(CorruptArchive, match=r"top-master.zip is damaged"):
        obtain_testsets([a_set(tmp_path, "A", 3, server.url)])
    assert len(server.requests) == 2
    server.files["master.zip"] = whole
    obtain_testsets([a_set(tmp_path, "A", 3, server.url)])
    assert len(list((tmp_path / "testsets" / "A").iterdir())) == 3


def test_a_folder_that_is_not_the_set_is_left_alone(server: ArchiveServer, tmp_path: Path) -> None:
    mine = photo(tmp_path / "testsets" / "A" / "mine.png")
    with pytest.raises(DataError, match="holds 1 photos, A has 3: move the folder away"):
        obtain_testsets([a_set(tmp_path, "B", 2, server.url, "b"), a_set(tmp_path, "A", 3, server.url)])
    assert server.requests == []
    assert mine.exists()


def test_an_archive_needs_to_be_described() -> None:
    with pytest.raises(ValueError, match=r"needs root .* images .* and folder"):
        TestSet(name="A", archive="https://example.org/a.zip", folder="a")


def test_an_archive_that_cannot_be_fetched_does_not_cost_the_others(
    server: ArchiveServer, tmp_path: Path
) -> None:
    gone = replace(a_set(tmp_path, "A", 3), archive=f"{server.url}/gone.zip")
    with pytest.raises(DataError, match=r"^a: .*gone\.zip: 404"):
        obtain_testsets([gone, a_set(tmp_path, "B", 2, server.url, "b")])
    assert len(list((tmp_path / "testsets" / "B").iterdir())) == 2
