"""Builds a packed store: in parallel, once, and whole or not at all.

Enters: the files of one split. Leaves: the folder of a `PhotoStore`. The folder's name has a fingerprint of
the files (names, sizes, modification times) and of the options, so that changed photos make a new store, as
do files that could not be read and now can. A store is written under a temporary name beside its final one,
and renamed when it is complete and on the disk: a crash leaves nothing that could be taken for a store, and
the next process to build it removes the remains. A lock that the system releases when its holder dies lets
one process build while the others wait.
"""

import functools
import hashlib
import itertools
import logging
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal

from restora.data.archives import disk_of_data
from restora.data.locking import end_with_parent, free, sole_process
from restora.data.progress import Advance, progress
from restora.data.store import (
    FORMAT,
    INDEX,
    PIXELS,
    DamagedStore,
    Entry,
    LeftOut,
    PhotoStore,
    Plane,
    index_digest,
    stamp,
)
from restora.files import json_text, sync
from restora.photos.errors import DataError, PhotoError
from restora.photos.kinds import pixel_limit
from restora.photos.names import file_stem
from restora.photos.reading import Channels, Pixels, channel_count, channel_word, photo_size, read_photo
from restora.words import counted

log = logging.getLogger(__name__)
_ALIGNMENT = 4096
_LONGEST_NAME = 150
"""Bytes; a store's draft and its lock have longer names."""
_FEW_PHOTOS = 16
"""Up to so many photos are decoded in this process: starting others would take longer."""

_settled: set[tuple[str, int]] = set()
"""Stores whose left-out files this process has tried to read again, with the limit on pixels."""


@dataclass(frozen=True)
class PhotoFile:
    """One photo of a data set: its name, unique in its split, and where it is."""

    name: str
    clean: Path
    degraded: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """The files that it consists of."""
        return [self.clean] if self.degraded is None else [self.clean, self.degraded]


@dataclass(frozen=True)
class Reader:
    """How a file becomes pixels.

    `size` gives (H,W), cheaply, `read` uint8 (H,W,C) for the C that is asked for. Both raise
    `PhotoError`, and can be pickled.
    """

    size: Callable[[Path], tuple[int, int]] = photo_size
    read: Callable[[Path, int], Pixels] = read_photo


class NoneUsable(DataError):
    """No file of a split can be used as a photo; `left_out` has them all."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        self.left_out = list(left_out)
        first = self.left_out[0]
        super().__init__(
            f"none of {len(left_out)} files can be used; the first is {first.path}: {first.reason}"
        )


def pack(
    files: Sequence[PhotoFile],
    *,
    store_dir: Path,
    name: str,
    channels: Channels,
    scale: int = 1,
    processes: int | None = None,
    reader: Reader | None = None,
) -> PhotoStore:
    """The packed store of `files`, built now unless it stands already.

    `scale` is that between the clean and the degraded photo of a pair. `processes` null is one per core,
    `reader` null reads photo files. Files that cannot be used are left out and named in
    `PhotoStore.left_out`; `NoneUsable` if none is left.
    """
    reader, count = reader or Reader(), channel_count(channels)
    usual = (
        store_dir / f"{file_stem(name, _LONGEST_NAME)}-{_fingerprint(files, channel_word(channels), scale)}"
    )
    earlier: list[LeftOut] | None = None
    for number in itertools.count(1):
        folder = usual if number == 1 else usual.with_name(f"{usual.name}-{number}")
        store = _packed(files, folder, count, scale, processes or cores(), reader)
        if not store.is_of({file.name: file.paths for file in files}, reader.read):
            continue  # other photos
        store.are_at({file.name: str(file.clean) for file in files})
        if store.left_out == earlier or not _more_is_readable(store, files, scale, reader):
            return store
        log.info("%s: files that it leaves out can be read now: the photos are packed anew", folder.name)
        earlier = store.left_out
    raise AssertionError


def _packed(
    files: Sequence[PhotoFile], folder: Path, channels: int, scale: int, processes: int, reader: Reader
) -> PhotoStore:
    """The store in a folder, built now unless it stands already."""
    if folder.exists():
        with suppress(DamagedStore):
            return _opened(folder)
    with sole_process(folder.with_name(f".{folder.name}.lock"), doing=f"packing {folder.name}"):
        if folder.exists():
            try:
                return _opened(folder)
            except DamagedStore as damage:  # another process may have packed it again in the meantime
                log.warning("%s: the photos are packed again", damage)
                shutil.rmtree(folder)
        _build(files, folder, channels, scale, processes, reader)
    _say_earlier(folder)
    return PhotoStore(folder=folder)


def _say_earlier(folder: Path) -> None:
    """Names earlier packings of the same name: nothing knows whether another run still needs them."""
    stem = re.sub(r"-[0-9a-f]{16}(-\d+)?$", "", folder.name)
    same = re.compile(re.escape(stem) + r"-[0-9a-f]{16}(-\d+)?")
    others = [other for other in folder.parent.iterdir() if same.fullmatch(other.name) and other != folder]
    size = sum(file.stat().st_size for other in others for file in (other / PIXELS,) if file.is_file())
    if others:
        log.info(
            "%s has %s of %s of other photos or options: delete what no run needs (%s/%s-*)",
            *(folder.parent, decimal(size), counted(len(others), "earlier packing"), folder.parent, stem),
        )


def _opened(folder: Path) -> PhotoStore:
    """The existing store, after some of its pixels were compared with their checksums."""
    store = PhotoStore(folder=folder)
    store.verify()
    return store


def _more_is_readable(store: PhotoStore, files: Sequence[PhotoFile], scale: int, reader: Reader) -> bool:
    """Whether any file that the store leaves out can be used by now.

    A package was installed, or the limit on pixels or the file's permissions were changed; neither changes
    the files, of which the store's name is a fingerprint.
    """
    known = (store.digest, pixel_limit())
    left_out = {file.path for file in store.left_out}
    doubtful = [file for file in files if any(str(path) in left_out for path in file.paths)]
    if known in _settled or not any(_is_usable(file, store.channels, scale, reader) for file in doubtful):
        _settled.add(known)
        return False
    return True


def _is_usable(file: PhotoFile, channels: int, scale: int, reader: Reader) -> bool:
    try:
        sizes = [reader.size(path) for path in file.paths]
    except PhotoError:
        return False
    if len(sizes) == 2 and not fits(sizes[0], sizes[1], scale):
        return False
    planes = [Plane(0, *size) for size in sizes]
    return not any(
        isinstance(_read(channels, reader, path, plane), str)
        for path, plane in zip(file.paths, planes, strict=True)
    )


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fingerprint(files: Sequence[PhotoFile], channels: str, scale: int) -> str:
    digest = hashlib.blake2b(f"{FORMAT} {channels} {scale}".encode(), digest_size=8)
    for file in files:
        digest.update(f"\n{file.name}".encode())
        for path in file.paths:
            try:
                status = path.stat()
                digest.update(f"\t{status.st_size} {status.st_mtime_ns}".encode())
            except OSError:  # a broken link: the file will be left out and named
                digest.update(b"\tmissing")
    return digest.hexdigest()


def _build(
    files: Sequence[PhotoFile], folder: Path, channels: int, scale: int, processes: int, reader: Reader
) -> None:
    _remove_remains(folder)
    draft = folder.with_name(f"{_draft_prefix(folder.name)}{os.getpid()}")
    draft.mkdir()
    try:
        with disk_of_data(folder.parent):
            _fill(files, draft, folder.name, channels, scale, processes, reader)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.rename(folder)
    sync(folder.parent)


def _draft_prefix(name: str) -> str:
    return f".{name}.draft-"


def _remove_remains(folder: Path) -> None:
    """Removes what interrupted packings left, also those of photos that have changed since.

    This process holds the lock of `folder`, so the processes that wrote its drafts have ended; those of
    others have ended where their lock is free.
    """
    for remains in sorted(folder.parent.glob(".*.draft-*")):
        name = remains.name[1:].rpartition(".draft-")[0]
        lock = folder.with_name(f".{name}.lock")
        with nullcontext(True) if name == folder.name else free(lock) as ended:
            if ended:
                log.info("removing the rest of an interrupted packing of %s", name)
                shutil.rmtree(remains)


def _fill(
    files: Sequence[PhotoFile],
    draft: Path,
    label: str,
    channels: int,
    scale: int,
    processes: int,
    reader: Reader,
) -> None:
    """Writes the pixels and the index, and waits until both are on the disk."""
    left_out: dict[Path, str] = {}
    planes = _lay_out(files, channels, left_out, reader)
    _check_disk(draft, planes, channels)
    _write_pixels(draft / PIXELS, planes, channels, left_out, processes, label, reader)
    entries = _entries(files, planes, left_out, scale)
    if not entries:
        raise NoneUsable([LeftOut(str(path), reason) for path, reason in left_out.items()])
    index: dict[str, Any] = {
        "format": FORMAT,
        "channels": channels,
        "photos": [_row(entry) for entry in _with_checksums(entries, draft / PIXELS, channels)],
        "left_out": [asdict(LeftOut(str(path), reason)) for path, reason in sorted(left_out.items())],
    }
    index["sha256"] = index_digest(index)
    with (draft / INDEX).open("w") as handle:
        handle.write(json_text(index, indent=None))
        handle.flush()
        os.fsync(handle.fileno())


def _lay_out(
    files: Sequence[PhotoFile], channels: int, left_out: dict[Path, str], reader: Reader
) -> dict[Path, Plane]:
    """A place in the file for every picture whose header can be read; a path listed twice has one place."""
    planes: dict[Path, Plane] = {}
    end = 0
    for path in dict.fromkeys(path for file in files for path in file.paths):
        try:
            height, width = reader.size(path)
        except PhotoError as error:
            left_out[path] = error.reason
            continue
        planes[path] = Plane(end, height, width)
        end += -(-height * width * channels // _ALIGNMENT) * _ALIGNMENT
    return planes


def _check_disk(folder: Path, planes: dict[Path, Plane], channels: int) -> None:
    needed = sum(plane.height * plane.width * channels for plane in planes.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"packing needs {decimal(needed)} in {folder.parent}, which has {decimal(free)} left: "
            "make room, or set data_dir (RESTORA_DATA) to another disk"
        )


def _write_pixels(
    path: Path,
    planes: dict[Path, Plane],
    channels: int,
    left_out: dict[Path, str],
    processes: int,
    label: str,
    reader: Reader,
) -> None:
    """Decodes every picture into its place; those that cannot be decoded join `left_out`."""
    with path.open("wb") as handle:
        last = max(planes.values(), key=lambda plane: plane.offset, default=Plane(0, 0, 0))
        handle.truncate(last.offset + last.height * last.width * channels)
    work = partial(_write_one, path, channels, reader)
    with progress(f"packing {label}", len(planes)) as advance:
        if processes == 1 or len(planes) <= _FEW_PHOTOS:
            reasons = {}
            for source, plane in planes.items():
                reasons[source] = work(source, plane)
                advance(1)
        else:
            reasons = _in_processes(work, planes, min(processes, len(planes)), advance)
    left_out.update((source, reason) for source, reason in reasons.items() if reason is not None)
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _in_processes(
    work: "partial[str | None]", planes: dict[Path, Plane], processes: int, advance: Advance
) -> dict[Path, str | None]:
    """`work` on every picture; spawned, not forked: the parent may run threads of torch and OpenMP."""
    reasons = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
        jobs = {pool.submit(work, source, plane): source for source, plane in planes.items()}
        try:
            for job in as_completed(jobs):
                reasons[jobs[job]] = job.result()
                advance(1)
        except BrokenProcessPool as error:
            first = next(source for source in planes if source not in reasons)
            raise DataError(
                f"a process that decodes photos died, at {first} or shortly after (out of memory?): "
                "remove the photo, or give the machine more memory"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return reasons


def _write_one(path: Path, channels: int, reader: Reader, source: Path, plane: Plane) -> str | None:
    """Decodes `source` into its place in the file; returns the reason if that fails, else None."""
    pixels = _read(channels, reader, source, plane)
    if isinstance(pixels, str):
        return pixels
    with path.open("rb+") as handle:
        handle.seek(plane.offset)
        handle.write(np.ascontiguousarray(pixels).data)
    return None


def _read(channels: int, reader: Reader, source: Path, plane: Plane) -> Pixels | str:
    """The pixels of `source`, of the size of its header; or why they cannot be used."""
    try:
        pixels = reader.read(source, channels)
    except PhotoError as error:
        return error.reason
    if pixels.shape[:2] != (plane.height, plane.width):
        return f"is {pixels.shape[1]}x{pixels.shape[0]}, its header says {plane.width}x{plane.height}"
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (channels,):
        return f"gave {pixels.dtype} pixels of shape {pixels.shape}, expected uint8 with {channels} channels"
    return pixels


def _entries(
    files: Sequence[PhotoFile], planes: dict[Path, Plane], left_out: dict[Path, str], scale: int
) -> list[Entry]:
    """The usable photos; a pair is left out if either of its halves is, or if its sizes disagree."""
    entries = []
    for file in files:
        if any(path in left_out for path in file.paths):
            continue
        clean, degraded = planes[file.clean], None
        if file.degraded is not None:
            degraded = planes[file.degraded]
            if not fits((clean.height, clean.width), (degraded.height, degraded.width), scale):
                expected = "the same size" if scale == 1 else f"{scale} times the sides"
                left_out[file.degraded] = (
                    f"is {degraded.width}x{degraded.height}, its clean partner {file.clean} is "
                    f"{clean.width}x{clean.height}: expected {expected}"
                )
                continue
        entries.append(Entry(file.name, str(file.clean), clean, degraded, tuple(map(stamp, file.paths))))
    return entries


def fits(large: tuple[int, int], small: tuple[int, int], scale: int) -> bool:
    """Whether the sizes (H,W) are those of a pair; a remainder may have been cut off or rounded up."""
    return all(few in (many // scale, -(-many // scale)) for many, few in zip(large, small, strict=True))


def _with_checksums(entries: list[Entry], pixels: Path, channels: int) -> list[Entry]:
    """The entries with the SHA-256 of their pixels, read back from the file."""

    @functools.cache
    def checked(plane: Plane) -> Plane:
        with pixels.open("rb") as handle:
            handle.seek(plane.offset)
            size = plane.height * plane.width * channels
            return replace(plane, sha256=hashlib.sha256(handle.read(size)).hexdigest())

    return [
        replace(
            entry,
            clean=checked(entry.clean),
            degraded=None if entry.degraded is None else checked(entry.degraded),
        )
        for entry in entries
    ]


def _row(entry: Entry) -> dict[str, object]:
    degraded = None if entry.degraded is None else astuple(entry.degraded)
    row = {"name": entry.name, "path": entry.path, "clean": astuple(entry.clean), "degraded": degraded}
    return {**row, "seen": entry.seen}
