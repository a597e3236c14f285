"""Calls to W&B in a separate thread, so that a failing or hanging W&B does not affect the training.

Calls are made in order; after the first one that fails, W&B is given up with one warning. All waits have a
time limit: a server that hangs does not delay the training, and delays the end of a run by at most a minute.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)
_WAITING_AT_MOST = 10_000
"""Calls in the queue; a W&B so far behind counts as stopped."""
_KILLED_SECONDS = 5.0

Call = Callable[[], Any]


class Background:
    """Runs calls in order in a thread. `advice` is added to the warning about a failure."""

    def __init__(self, *, advice: str) -> None:
        self.advice = advice
        self.broken = False
        self._calls: queue.Queue[Call | None] = queue.Queue(_WAITING_AT_MOST)
        self._thread = threading.Thread(target=self._work, name="restora-wandb", daemon=True)
        self._thread.start()

    def call(self, call: Call) -> None:
        """Queues `call`; does nothing after W&B has been given up."""
        if self.broken:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self.give_up("it accepts no more data")

    def wait(self, seconds: float) -> bool:
        """Waits until all queued calls are done; False if that takes longer than `seconds`."""
        done = threading.Event()
        self.call(done.set)
        return done.wait(seconds) if not self.broken else True

    def close(self, seconds: float) -> bool:
        """Waits at most `seconds` for the queued calls; returns whether all were made.

        Ends W&B's process if they were not.
        """
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)
        self._thread.join(seconds)
        late = self._thread.is_alive()
        if late:
            self.give_up(f"it did not finish within {seconds:.0f} s")
        if self.broken:
            end_service()
        return not self.broken

    def give_up(self, reason: str) -> None:
        """Gives W&B up for this run, with one warning."""
        if not self.broken:
            self.broken = True
            log.warning("W&B: %s; training continues without it. %s", reason, self.advice)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self.broken:
                continue
            try:
                call()
            except BaseException as error:  # W&B ends threads by SystemExit too
                self.give_up(first_line(error))


def _ended(connection: Any) -> None:
    with contextlib.suppress(BaseException):
        connection.teardown(1)


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def end_service() -> None:
    """Ends W&B's process and resets W&B's reference to it.

    So neither the end of this process nor the next job of a sweep waits for it. Note: W&B has no public call
    for this; attributes that its version lacks are skipped.
    """
    import wandb
    from wandb.sdk import wandb_setup

    setup = getattr(wandb_setup, "_singleton", None)
    connection = getattr(setup, "_connection", None)
    process = getattr(getattr(connection, "_proc", None), "_process", None)
    if connection is not None:
        ending = threading.Thread(target=_ended, args=(connection,), daemon=True)
        ending.start()
        ending.join(_KILLED_SECONDS)  # time for it to flush its data to its file
    if process is not None:
        process.kill()
        with contextlib.suppress(Exception):
            process.wait(_KILLED_SECONDS)
    os.environ.pop("WANDB_SERVICE", None)
    if hasattr(wandb_setup, "_singleton"):
        wandb_setup._singleton = None
    with contextlib.suppress(Exception):
        wandb.sdk.lib.module.unset_globals()  # type: ignore[no-untyped-call]
