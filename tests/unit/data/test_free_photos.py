"""Freely licensed photos: the manifest keeps its promises, and packages become photos."""

import hashlib
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, Plan
from PIL import Image

from restora.data import free_photos
from restora.data.archives import CorruptArchive
from restora.data.debian import files_of_package, qt_resources
from restora.data.free_photos import FreePhoto, FreePhotos, Package, manifest
from restora.photos.errors import DataError
from restora.photos.reading import read_photo

FREE = r"CC0-1\.0|public domain|CC-BY(-SA)?-\d\.\d|L?GPL-\d(\.\d)?\+?"


def test_every_photo_has_an_author_and_a_free_licence_and_is_reduced() -> None:
    packages, photos = manifest()
    assert len(photos) >= 150
    for name, photo in photos.items():
        assert photo.package in packages, name
        assert photo.author.strip().lower() not in ("", "anonymous", "unknown"), name
        assert re.fullmatch(FREE, photo.licence), (name, photo.licence)
        assert 1.55 <= photo.reduction <= 3.1, name
        sides = [small * photo.reduction for small in photo.reduced_to]
        assert sides == pytest.approx(photo.size, abs=2.5), name
    assert len({photo.file for photo in photos.values()}) == len(photos)
    assert all(re.fullmatch("[0-9a-f]{64}", package.sha256) for package in packages.values())


def photo_bytes(colour: int, side: int = 40) -> bytes:
    pixels = np.random.default_rng(colour).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[..., 0] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def debian(files: Mapping[str, bytes], compression: str = "xz") -> bytes:
    """A Debian package of those files."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", inner.getvalue())):
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += content + b"\n" * (len(content) % 2)
    return package


def resources(files: Mapping[str, bytes]) -> bytes:
    """A Qt resource archive (version 1) of one folder `photos`, every second file compressed."""
    labels = ["photos", *files]
    names, offsets = b"", []
    for label in labels:
        offsets.append(len(names))
        names += struct.pack(">HI", len(label), 0) + label.encode("utf-16-be")
    contents, starts = b"", []
    for number, content in enumerate(files.values()):
        held = struct.pack(">I", len(content)) + zlib.compress(content) if number % 2 else content
        starts.append(len(contents))
        contents += struct.pack(">I", len(held)) + held
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", offsets[0], 2, len(files), 2)
    for number, start in enumerate(starts):
        tree += struct.pack(">IHHHI", offsets[number + 1], number % 2, 0, 0, start)
    head = 20
    places = (head, head + len(tree), head + len(tree) + len(contents))
    return struct.pack(">4s4I", b"qres", 1, *places) + tree + contents + names


@pytest.fixture
def small_manifest(monkeypatch) -> bytes:
    """A manifest of one package with a plain photo and two in a resource archive; gives the package."""
    inside = resources({"b.png": photo_bytes(2), "c.png": photo_bytes(3)})
    package = debian({"usr/a.png": photo_bytes(1), "usr/more.rcc": inside, "usr/other": b"x"})
    packages = {"p": Package("1", "pool/p.deb", len(package), hashlib.sha256(package).hexdigest())}
    files = {"a": "usr/a.png", "b": "usr/more.rcc:/photos/b.png", "c": "usr/more.rcc:/photos/c.png"}
    photos = {
        name: FreePhoto("p", file, "A", "CC0-1.0", (40, 40), 9.0, (20, 20)) for name, file in files.items()
    }
    monkeypatch.setattr(free_photos, "manifest", lambda: (packages, photos))
    monkeypatch.setattr(free_photos, "_PATIENCE", free_photos.Patience(timeout=5, attempts=2, pause=0.01))
    return package


def test_packages_become_reduced_photos_also_after_a_broken_connection(
    small_manifest: bytes, tmp_path: Path
) -> None:
    with ArchiveServer({"p.deb": small_manifest}, plans=[Plan(cut=len(small_manifest) // 2)]) as server:
        source = FreePhotos(root=tmp_path / "photos", url=server.url, val_fraction=0.3, test_fraction=0.3)
        with pytest.raises(DataError, match="`restora prepare data=free_photos`"):
            source.check()
        source.obtain()
        assert sum(request.sent for request in server.requests) < 1.6 * len(small_manifest)
        asked = len(server.requests)
        (source.folder / ".download.lock").unlink()
        source.obtain()
        assert len(server.requests) == asked, "nothing is fetched twice"
        assert not (source.folder / ".download.lock").exists(), "the folder may be one to read only"
        (source.folder / "b.png").unlink()
        source.obtain()
    assert read_photo(source.folder / "b.png").shape == (20, 20, 3)
    split = {name: {photo.name for photo in source.photos(name)} for name in ("train", "val", "test")}
    assert sorted(set.union(*split.values())) == ["a", "b", "c"]
    assert all(split.values())
    assert not list((source.folder / ".packages").iterdir()), "packages are removed"


def test_without_a_network_it_says_so(small_manifest: bytes, tmp_path: Path) -> None:
    source = FreePhotos(root=tmp_path, url="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"no connection.*put the file at .*p\.deb yourself"):
        source.obtain()


def test_a_mirror_with_a_damaged_package_is_not_the_last(small_manifest: bytes, tmp_path: Path) -> None:
    damaged = small_manifest[:-1] + bytes([small_manifest[-1] ^ 1])
    with ArchiveServer({"p.deb": damaged}) as first, ArchiveServer({"p.deb": small_manifest}) as second:
        source = FreePhotos(root=tmp_path / "photos", val_fraction=0.3, test_fraction=0.3)
        source.mirrors = (first.url, second.url)
        source.obtain()
    assert not source.missing()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "not a Debian package"),
        (b"!<arch>\n" + b"x" * 70, "no whole member data.tar"),
        (debian({"usr/a": b"1"}), "lacks 1 of 1 files: usr/b"),
        (debian({"usr/a": b"1" * 5000})[:-40], "no whole member"),
    ],
)
def test_a_damaged_package_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.deb").write_bytes(content)
    with pytest.raises(CorruptArchive, match=words):
        list(files_of_package(tmp_path / "p.deb", ["usr/b"]))


def test_a_resource_archive_that_contains_itself_ends() -> None:
    looped = bytearray(resources({"b.png": b"1"}))
    looped[20 + 14 + 10 : 20 + 14 + 14] = struct.pack(">I", 1)  # the folder's first child is the folder
    with pytest.raises(CorruptArchive, match="nested without end"):
        qt_resources(bytes(looped))


def test_the_numbers_that_are_documented_are_those_of_the_manifest(repository: Path) -> None:
    packages, photos = manifest()
    size = f"{sum(package.bytes for package in packages.values()) / 1e6:.0f} MB"
    for place in ("docs/how-to/zoo.md", "conf/data/free_photos.yaml"):
        text = (repository / place).read_text(encoding="utf-8")
        assert f"({size}" in text
        assert re.search(rf"\b{len(photos)} (freely licensed )?photographs", text)
