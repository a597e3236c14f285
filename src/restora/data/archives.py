"""Photos from zip and tar files: a whole folder or nothing, and no file outside it.

Enters: an archive on the disk and what is known of it. Leaves: a folder of photos, which appears when all of
them are in it. Archives are not trusted: only the last part of a member's path is used (or the last few, none
of them `..`), links and devices are skipped, and an archive that unpacks to far more than photos would is
refused. Whether a file is zip or tar follows from its bytes, not from its name. The CRCs of a zip file are
checked while unpacking; a tar file has no checksums of its contents.
"""

import errno
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from rich.filesize import decimal

from restora.data.progress import progress
from restora.files import sync
from restora.photos.errors import DataError, PhotoError
from restora.photos.kinds import kind
from restora.photos.reading import list_photos, read_photo

_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # an encrypted zip file
)


_SWELLS, _SMALL = 100, 1 << 28
"""Photos are compressed already: an archive that grows a hundredfold, beyond 256 MB, does not hold photos."""


class CorruptArchive(DataError):
    """A damaged file, or another file than expected."""


@dataclass(frozen=True)
class Archive:
    """One zip or tar file (plain or compressed) of photos, and what is known of it.

    `folder` (below the data set's) is where the photos are put; `size` in bytes and `sha256` are those of the
    file; `md5` stands in where its authors publish nothing better. `inside` is the one folder of the archive
    to take, all of them without it. `levels` are the last parts of a photo's path that are kept, its name
    alone or also folders above it. `photos` is the expected number of photos, each of which must decode.
    `url_key` is the configuration key of the URL, `verify_key` that which turns the comparison off, if any.
    """

    name: str
    folder: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    inside: str | None = None
    levels: int = 1
    photos: int | None = None
    url_key: str = "data.source.url"
    verify_key: str | None = "data.source.verify"


@dataclass(frozen=True)
class _Member:
    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Archive, path: Path, folder: Path) -> None:
    """Puts the photos of a zip or tar file into `folder`, which appears when it is whole.

    Raises `CorruptArchive`, `DataError` for a full disk.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with _members(archive, path) as members:
            photos = _photos(members, archive)
            _check_swelling(archive, path, list(photos.values()))
            check_disk(draft, sum(photo.size for photo in photos.values()))
            with progress(f"unpacking {archive.name}", len(photos)) as advance, disk_of_data(folder.parent):
                for place, photo in photos.items():
                    (draft / place).parent.mkdir(parents=True, exist_ok=True)
                    with photo.open() as source, (draft / place).open("xb") as out:
                        shutil.copyfileobj(source, out, _CHUNK)
                    advance(1)
        _check_photos(draft, archive)
    except _DAMAGE as error:
        shutil.rmtree(draft)
        raise CorruptArchive(f"{archive.name} is damaged: {error}") from error
    except OSError as error:
        shutil.rmtree(draft)
        if error.errno == errno.EINVAL:  # a header that claims a size no file has
            raise CorruptArchive(f"{archive.name} is damaged: a size in it is impossible") from error
        raise
    except BaseException:
        shutil.rmtree(draft)
        raise
    os.sync()
    draft.rename(folder)
    sync(folder.parent)


def _check_swelling(archive: Archive, path: Path, photos: list[_Member]) -> None:
    """Raises `CorruptArchive` for an archive that unpacks to far more than its size, a decompression bomb."""
    packed, unpacked = path.stat().st_size, sum(photo.size for photo in photos)
    if unpacked > max(_SWELLS * packed, _SMALL):
        raise CorruptArchive(
            f"{archive.name} has {decimal(packed)} and would unpack to {decimal(unpacked)}: refused, "
            "photos do not shrink so far"
        )


def check_disk(folder: Path, needed: int) -> None:
    """Raises `DataError` if there is no room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{decimal(needed)} are needed in {folder}, {decimal(free)} are left: make room, or set "
            "data_dir (RESTORA_DATA) to another disk"
        )


@contextmanager
def disk_of_data(folder: Path) -> Iterator[None]:
    """Raises `DataError`, with the setting that names another disk, if the disk of `folder` becomes full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{folder}: {error.strerror}: make room, or set data_dir (RESTORA_DATA) to another disk"
        ) from error


@contextmanager
def _members(archive: Archive, path: Path) -> Iterator[list[_Member]]:
    """The plain files of an open archive: no folders, links or devices."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            yield [
                _Member(PurePosixPath(info.name), info.size, partial(_open_in_tar, tar, info))
                for info in tar
                if info.isreg()
            ]
        return
    if not zipfile.is_zipfile(path):
        raise CorruptArchive(
            f"{archive.name} is damaged: it is neither a whole zip file nor a tar file (a web page, perhaps: "
            f"check {archive.url_key})"
        )
    with zipfile.ZipFile(path) as opened:
        yield [
            _Member(PurePosixPath(info.filename), info.file_size, partial(opened.open, info))
            for info in opened.infolist()
            if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        ]


def _open_in_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(info)
    assert source is not None, "a plain file has contents"
    return source


def _photos(members: list[_Member], archive: Archive) -> dict[PurePosixPath, _Member]:
    """The photos of the wanted folder, or of all folders, by their target paths."""
    photos = [
        member
        for member in members
        if kind(member.path.name) == "photo" and "__MACOSX" not in member.path.parts
    ]
    wanted: dict[PurePosixPath, _Member] = {}
    for photo in photos:
        if archive.inside is not None and photo.path.parent != PurePosixPath(archive.inside):
            continue
        place = PurePosixPath(*photo.path.parts[-archive.levels :])
        if ".." in place.parts or place.is_absolute():
            raise CorruptArchive(f"{archive.name} holds {photo.path}, which leads out of its folder")
        if place in wanted:
            raise CorruptArchive(f"{archive.name} holds two photos {place}")
        wanted[place] = photo
    if not wanted:
        folders = sorted({str(photo.path.parent) for photo in photos})
        there_are = f"; it has some in {', '.join(folders[:8])}" if folders else ""
        where = "" if archive.inside is None else f" in {archive.inside}"
        raise CorruptArchive(f"{archive.name} holds no photos{where}{there_are}")
    if archive.photos not in (None, len(wanted)):
        where = archive.inside or "it"
        raise CorruptArchive(
            f"{archive.name} holds {len(wanted)} photos in {where}, expected {archive.photos}"
        )
    return wanted


def _check_photos(folder: Path, archive: Archive) -> None:
    """Raises `CorruptArchive` for a photo that does not decode, if the number of photos is known."""
    if archive.photos is None:
        return
    with progress(f"checking {archive.folder}", archive.photos) as advance:
        for photo in list_photos(folder):
            try:
                read_photo(photo)
            except PhotoError as error:
                raise CorruptArchive(f"{archive.name} is damaged: {photo.name} {error.reason}") from error
            advance(1)
