"""Runs jobs on this machine: some at a time, each in its own process with a share of cores and GPUs."""

import json
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from restora.files import json_text
from restora.sweeping.executor import Executor, Running, Source

_POLL_SECONDS = 0.2
_SERVERS = 5
"""The most servers that are started, in case they are killed."""


@dataclass
class Local(Executor):
    """Starts the jobs through a server, each in its own process group."""

    server: "subprocess.Popen[bytes] | None" = None

    def _work(self, source: Source) -> None:
        servers = 0
        while self._anything(source) and self._server(source):
            servers += 1
            if servers >= _SERVERS:
                raise RuntimeError(f"the process that starts jobs was killed {servers} times")
            self.teller.say("the process that starts jobs was killed: starting another one")

    def _server(self, source: Source) -> bool:
        """Runs jobs with one server; returns whether it was killed."""
        command = [sys.executable, "-P", "-m", "restora.sweeping.server"]
        with (
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            ) as server,
            selectors.DefaultSelector() as selector,
        ):
            self.server = server
            assert server.stdin is not None
            assert server.stdout is not None
            os.set_blocking(server.stdout.fileno(), False)
            selector.register(server.stdout, selectors.EVENT_READ)
            ready, received = False, b""
            while True:
                if ready:
                    self._fill(source)
                if not self.running and not self.waiting and ready:
                    break
                self._stop_if_asked()
                for _ in selector.select(_POLL_SECONDS):
                    part = server.stdout.read()
                    if part == b"":
                        return self._lost()
                    received += part or b""
                    while b"\n" in received:
                        line, _, received = received.partition(b"\n")
                        ready |= self._heard(json.loads(line), source)
                self._look(source)
            server.stdin.close()
        return False

    def _launch(self, running: Running, *, again: bool) -> None:
        folder = str(self.plan.path(running.job))
        request = {
            "start": folder,
            "jobs": self.plan.expected,
            "threads": self.slots.threads,
            "retry": again,
            "environment": {**self.plan.environment, **self.slots.environment(running.slot)},
            "cwd": folder if self.plan.chdir else self.plan.cwd,
            "plugins": self.plan.plugins,
        }
        assert self.server is not None
        assert self.server.stdin is not None
        with suppress(BrokenPipeError):
            self.server.stdin.write(json_text(request, indent=None).encode() + b"\n")
            self.server.stdin.flush()

    def _heard(self, message: dict[str, Any], source: Source) -> bool:
        """Handles a response of the server; returns whether it reports that it is ready."""
        if "started" in message:
            running = self.running[message["started"]]
            running.handle = int(message["pid"])
            if self.asked is not None:  # a stop came in between
                self._end(running, signal.SIGTERM)
        elif "ended" in message:
            self._ended(message["ended"], int(message["code"]), source)
        return "ready" in message

    def _lost(self) -> bool:
        """Queues the jobs of a dead server again; the system has asked them to stop."""
        self.waiting += [running.job for running in self.running.values()]
        self.running.clear()
        return self.asked is None

    def _end(self, running: Running, number: int) -> None:
        if running.handle is not None:
            with suppress(ProcessLookupError, PermissionError):
                end = os.killpg if number == signal.SIGKILL else os.kill
                end(running.handle, number)
