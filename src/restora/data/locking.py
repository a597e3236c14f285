"""One process at a time: a lock that the system releases when its holder ends, however it ends."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def sole_process(lock: Path, *, doing: str) -> Iterator[None]:
    """Holds the lock file; while another process holds it, waits and says so. The empty file stays behind."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is %s: waiting for it", doing)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
