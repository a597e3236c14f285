"""How `restora restore` ends before its last photo: by a signal, or because nothing more can be written.

A first signal lets the step or tile at hand end, a second one ends the process at once.
"""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from restora.apps.restoring.plan import Job, noun
from restora.files import clear_drafts
from restora.words import counted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk after which no further photo can be written."""
WORTH_KEEPING = 60.0
"""Seconds of a fit after which its result so far is kept when it is stopped."""
STOPPING = "stopping after the step or tile at hand; Ctrl-C again: at once"


class Stopped(Exception):
    """Raised between tiles once the results are no longer needed."""


class Ended(Exception):
    """A signal ended the work; the cause is its KeyboardInterrupt or SystemExit."""

    def __init__(self, restored: int) -> None:
        super().__init__(f"{restored} restored")
        self.restored = restored

    def message(self, jobs: Sequence[Job]) -> str:
        """What was done of the jobs, and how the work goes on."""
        if not self.restored:
            return f"stopped before a {noun(jobs)} was restored"
        return (
            f"stopped: {self.restored} of {counted(len(jobs), noun(jobs))} restored, each file complete; "
            "--skip-existing restores the others"
        )


def so_far(target: Path) -> Path:
    """The file for the result so far of a fit that was stopped: it does not count as the output."""
    return target.with_name(f"{target.stem}.so_far{target.suffix}")


def clear_drafts_of(jobs: Sequence[Job]) -> None:
    """Removes the temporary files beside the outputs."""
    for folder in {job.target.parent for job in jobs}:
        clear_drafts(folder)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does; afterwards both signals have the handlers of before."""

    def end(number: int, frame: object) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_next_signal() -> None:
    """Makes a further signal end the process without waiting for the threads that compute.

    What they were writing is a draft, which the next command in that folder removes.
    """

    def leave(number: int, frame: object) -> None:  # noqa: ARG001
        with contextlib.suppress(OSError):
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # the cursor, which the progress bar hides
        os._exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
