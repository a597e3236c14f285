"""The process that starts the jobs of a sweep: `python -m restora.sweeping.server`.

It has imported torch and Lightning, computes nothing itself, and forks a process for each job, which costs
tens of milliseconds instead of seconds. Each job is the leader of its own process group, writes to
`train.log` in its folder, and is stopped however this process ends.

Requests are lines of JSON on standard input: {"start": FOLDER, "jobs": 5, "threads": 1, "retry": false,
"environment": {}, "cwd": FOLDER, "plugins": []}. Responses go to standard output: {"ready": true},
{"started": FOLDER, "pid": 7}, {"ended": FOLDER, "code": 0}; a negative code is a signal. When the input ends,
because the client has ended, all jobs are stopped.

Note: no code here may start a thread, because a fork would copy its locks but not the thread.
"""

import gc
import json
import logging
import os
import selectors
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from restora.files import json_text
from restora.sweeping.job import leave, stop_with_parent, write_to_log
from restora.sweeping.job import main as job

_PATIENCE_SECONDS = 60.0
"""How long jobs may take to save and end."""
_PARTS = (
    "degradation",
    "network",
    "objective",
    "family",
    "data",
    "source",
    "callback",
    "schedule",
    "optimizer",
)
Request = dict[str, Any]


class Server:
    """The running jobs, by process."""

    def __init__(self) -> None:
        self.answers = os.dup(1)
        os.dup2(2, 1)  # output of libraries is no response
        self.folders: dict[int, str] = {}
        self.input = b""
        self.wake, waker = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):  # from the terminal: left to the client process
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def answer(self, **content: Any) -> None:
        with suppress(BrokenPipeError):
            os.write(self.answers, json_text(content, indent=None).encode() + b"\n")

    def serve(self) -> Request | None:
        """Starts requested jobs until the input ends; in a job's process, returns its request."""
        self.answer(ready=True)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self.wake, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                self.reap()
                if 0 not in ready:
                    continue
                received = os.read(0, 65536)
                if not received:
                    break
                self.input += received
                while b"\n" in self.input:
                    line, _, self.input = self.input.partition(b"\n")
                    request = json.loads(line)
                    if self.fork(request) == 0:
                        return dict(request)
        self.end()
        return None

    def fork(self, request: Request) -> int:
        server = os.getpid()
        pid = os.fork()
        if pid:
            self.folders[pid] = request["start"]
            self.answer(started=request["start"], pid=pid)
            return pid
        os.setsid()
        stop_with_parent(server)
        signal.set_wakeup_fd(-1)
        for descriptor in (self.answers, self.wake, self.waker):
            os.close(descriptor)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        return 0

    def reap(self) -> None:
        """Reports the jobs that have ended, and kills the processes that are left in their groups."""
        with suppress(BlockingIOError):
            os.read(self.wake, 4096)
        while self.folders:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if (folder := self.folders.pop(pid, None)) is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                self.answer(ended=folder, code=os.waitstatus_to_exitcode(status))

    def end(self) -> None:
        """Stops all jobs; kills those that do not end in time."""
        for number, patience in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, 5.0)):
            for pid in self.folders:
                with suppress(ProcessLookupError):
                    os.kill(pid, number) if number == signal.SIGTERM else os.killpg(pid, number)
            until = time.monotonic() + patience
            while self.folders and time.monotonic() < until:
                time.sleep(0.05)
                self.reap()


def run(request: Request) -> int:
    """Runs a job in its process; returns the exit status."""
    folder = Path(request["start"]).resolve()
    write_to_log(folder)
    os.environ.update(request.get("environment", {}))
    os.chdir(request.get("cwd") or ".")
    return job(
        folder,
        jobs=int(request.get("jobs", 1)),
        threads=request.get("threads"),
        retry=bool(request.get("retry")),
        plugins=request.get("plugins", []),
    )


def main() -> int:
    import kornia.filters  # noqa: F401 -- as blurs do on use

    import restora.training.starting  # noqa: F401 -- imported once for all jobs
    from restora.registry import names

    for kind in _PARTS:  # imports the parts: saves each job a second
        names(kind)
    gc.collect()
    gc.freeze()  # garbage collection in a job then skips, and does not copy, imported objects
    request = Server().serve()
    if request is not None:
        leave(lambda: run(request))
    return 0


if __name__ == "__main__":
    logging.captureWarnings(False)
    sys.exit(main())
