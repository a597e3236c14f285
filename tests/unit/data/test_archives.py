"""Photos out of zip and tar files that are whole, torn, of another kind or up to no good."""

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from archive_server import tarred, zipped
from PIL import Image

from restora.data import archives
from restora.data.archives import Archive, CorruptArchive, unpack

NAME = "photos.zip"
BODY = zipped({f"photos/{index:04}.png": random.Random(index).randbytes(100_000) for index in range(20)})
PACKERS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {"photos.zip": zipped, "photos.tar": tarred}
both = pytest.mark.parametrize("name", PACKERS)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@both
def test_only_the_photos_of_the_wanted_folder_are_taken(name: str, tmp_path: Path) -> None:
    members = {
        "top/sets/a/1.png": png(1),
        "top/sets/a/2.png": png(2),
        "top/sets/a/notes.txt": b"",
        "top/sets/a/deeper/3.png": png(3),
        "top/sets/b/1.png": png(4),
        "sets/a/5.png": png(5),
    }
    (tmp_path / name).write_bytes(PACKERS[name](members))
    unpack(Archive(name, "x", inside="top/sets/a", photos=2), tmp_path / name, tmp_path / "x")
    assert contents(tmp_path / "x") == {"1.png": png(1), "2.png": png(2)}


@both
def test_members_that_climb_out_write_nowhere(name: str, tmp_path: Path) -> None:
    """Climbing names are another folder, or a file of that name in the wanted one."""
    root = tmp_path / "inner"
    root.mkdir()
    members = {
        "a/1.png": png(1),
        "a/../../2.png": png(2),
        "../3.png": png(3),
        f"{tmp_path}/4.png": png(4),
        "a/x\\..\\5.png": png(5),
    }
    (root / name).write_bytes(PACKERS[name](members))
    unpack(Archive(name, "x", inside="a"), root / name, root / "x")
    unpack(Archive(name, "y"), root / name, root / "y")
    (root / name).unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    inside = {"1.png": png(1), "x\\..\\5.png": png(5)}
    assert contents(root / "x") == inside
    assert contents(root / "y") == inside | {f"{number}.png": png(number) for number in (2, 3, 4)}
    assert sorted(path.name for path in root.iterdir()) == ["x", "y"]


def compressed(members: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tarred(members))


@pytest.mark.parametrize("pack", [zipped, tarred, compressed])
@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos"])
def test_the_kind_is_known_by_the_bytes(
    name: str, pack: Callable[[Mapping[str, bytes]], bytes], tmp_path: Path
) -> None:
    """Also of a tar file that ends in a zip file, whose directory is where that of a zip file would be."""
    (tmp_path / name).write_bytes(pack({"a/1.png": png(1), "b.zip": zipped({"a/2.png": png(2)})}))
    unpack(Archive(name, "x", inside="a"), tmp_path / name, tmp_path / "x")
    assert contents(tmp_path / "x") == {"1.png": png(1)}


@both
@pytest.mark.parametrize("body", [b"<!DOCTYPE html><p>Moved", b"", b"PK"])
def test_what_is_no_archive_is_said_to_be_none(name: str, body: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(CorruptArchive, match=f"{name} is damaged: it is neither .* check data.source.url"):
        unpack(Archive(name, "x"), tmp_path / name, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_and_devices_of_a_tar_file_are_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("1", tarfile.SYMTYPE), ("2", tarfile.LNKTYPE), ("3", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"a/{name}.png")
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        info = tarfile.TarInfo("a/4.png")
        info.size = len(png(4))
        tar.addfile(info, io.BytesIO(png(4)))
    unpack(Archive("a.tar", "x", inside="a", photos=1), tmp_path / "a.tar", tmp_path / "x")
    assert contents(tmp_path / "x") == {"4.png": png(4)}


def test_links_of_a_zip_file_are_passed_over(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / NAME, "w") as opened:
        opened.writestr(link, "/etc/hostname")
        opened.writestr("a/2.png", png(2))
    unpack(Archive(NAME, "x"), tmp_path / NAME, tmp_path / "x")
    assert contents(tmp_path / "x") == {"2.png": png(2)}


@both
@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a/1.png": png(1)}, "holds 1 photos in a, expected 2"),
        ({"a/1.png": png(1), "a/2.png": png(2)[:-30]}, "2.png cannot be decoded"),
        ({"b/1.png": png(1), "c/d/2.png": png(2)}, "holds no photos in a; it has some in b, c/d"),
    ],
)
def test_what_is_not_the_known_set_is_not_put_in_place(
    name: str, members: dict[str, bytes], reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(PACKERS[name](members))
    with pytest.raises(CorruptArchive, match=reason):
        unpack(Archive(name, "x", inside="a", photos=2), tmp_path / name, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@both
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_torn_archive_leaves_nothing(name: str, share: float, tmp_path: Path) -> None:
    noise = random.Random(0)
    photos = {}
    for index in range(6):
        buffer = io.BytesIO()
        Image.frombytes("L", (64, 64), noise.randbytes(64 * 64)).save(buffer, "PNG")
        photos[f"a/{index}.png"] = buffer.getvalue()
    body = PACKERS[name](photos).rstrip(b"\0")  # a tar file ends in padding
    (tmp_path / name).write_bytes(body[: int(share * len(body))])
    with pytest.raises(CorruptArchive, match=name):
        unpack(Archive(name, "x", inside="a", photos=6), tmp_path / name, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@both
def test_a_stop_in_the_middle_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, "read_photo", stop)
    (tmp_path / name).write_bytes(PACKERS[name]({"a/1.png": png(1)}))
    with pytest.raises(KeyboardInterrupt):
        unpack(Archive(name, "x", photos=1), tmp_path / name, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_archive_writes_nowhere_else(tmp_path: Path) -> None:
    members = {
        "../../outside.png": b"1",
        "/tmp/absolute.png": b"2",
        "deep/inside.PNG": b"3",
        "__MACOSX/deep/._inside.png": b"4",
        "readme.txt": b"5",
    }
    (tmp_path / NAME).write_bytes(zipped(members))
    unpack(Archive(NAME, "a/b"), tmp_path / NAME, tmp_path / "a" / "b")
    everything = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert everything == {NAME, "a/b/outside.png", "a/b/absolute.png", "a/b/inside.PNG"}
    assert not (tmp_path.parent / "outside.png").exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [({"a/1.png": b"1", "b/1.png": b"2"}, "two photos 1.png"), ({"readme.txt": b""}, "no photos")],
)
def test_archives_of_another_kind(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    (tmp_path / NAME).write_bytes(zipped(members))
    with pytest.raises(CorruptArchive, match=reason):
        unpack(Archive(NAME, "a"), tmp_path / NAME, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_unpacking_leaves_no_folder(tmp_path: Path) -> None:
    """What a dead process left is cleared away; a torn archive leaves nothing new."""
    remains = tmp_path / ".a.draft"
    remains.mkdir()
    (remains / "old.png").write_bytes(b"old")
    (tmp_path / NAME).write_bytes(BODY[: len(BODY) // 2])
    with pytest.raises(CorruptArchive):
        unpack(Archive(NAME, "a"), tmp_path / NAME, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / NAME).write_bytes(BODY)
    unpack(Archive(NAME, "a"), tmp_path / NAME, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        for member in archive.infolist():
            assert (tmp_path / "a" / Path(member.filename).name).read_bytes() == archive.read(member)
    assert len(list((tmp_path / "a").iterdir())) == 20


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a.bmp", bytes(64 << 20))
    assert path.stat().st_size < 1 << 18
    with pytest.raises(CorruptArchive, match="would unpack to"):
        unpack(Archive("bomb.zip", "photos"), path, tmp_path / "photos")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bomb.zip"]


def test_a_tar_header_that_claims_an_impossible_size_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "claims.tar"
    info = tarfile.TarInfo("a.png")
    info.size = 1 << 50
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(CorruptArchive):
        unpack(Archive("claims.tar", "photos"), path, tmp_path / "photos")
    assert [entry.name for entry in tmp_path.iterdir()] == ["claims.tar"]
