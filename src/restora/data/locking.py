"""A lock for one process at a time, released when its holder ends; workers that end with their parent."""

import fcntl
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restora.photos.errors import DataError

log = logging.getLogger(__name__)


@contextmanager
def sole_process(lock: Path, *, doing: str) -> Iterator[None]:
    """Holds the lock file; while another process holds it, waits and says so. The empty file stays behind.

    Raises `DataError` if it cannot be written, because then nothing can be in its folder.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    except OSError as error:
        raise DataError(
            f"{lock.parent} cannot be written to ({error.strerror}): set data_dir (RESTORA_DATA) to a folder "
            "that can"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is %s: waiting for it", doing)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # some file systems of clusters have no locks
            log.warning(
                "%s cannot be locked (%s): start no second command until this one is done %s",
                lock.parent,
                error.strerror,
                doing,
            )
        yield


@contextmanager
def free(lock: Path) -> Iterator[bool]:
    """Whether no process holds the lock file; then it is held here, without waiting."""
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def end_with_parent() -> None:
    """Makes a pool's process end when its parent is killed; otherwise it would wait or work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
