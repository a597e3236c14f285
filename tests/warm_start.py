"""`python -m restora` and `python -c` as processes of their own, without the seconds that imports take.

A server (warm_server.py) has imported what the commands import; for each command it forks a process that
becomes it, with its own folder, environment, output and signals. What such a command starts of restora itself
(the process that starts jobs, further processes of a distributed run) is forked too, and is its child as
ever. Whatever is about a fresh start itself (what is imported when, variables that libraries read as they are
loaded) is tested with fresh processes.

As a script, `warm_start.py SOCKET WORDS…` runs a command in the folder, the environment and the streams of
whoever calls it.
"""

import atexit
import functools
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO


class Started:
    """A command that runs: what `subprocess.Popen` is for a fresh one, its output kept in files."""

    def __init__(
        self,
        words: list[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str],
        merged: bool,
        output: Path | None = None,
    ) -> None:
        self.words = words
        self.returncode: int | None = None
        # open for as long as this object is: read when the process has ended
        self._out = tempfile.TemporaryFile() if output is None else output.open("ab+")  # noqa: SIM115
        self._err = self._out if merged else tempfile.TemporaryFile()  # noqa: SIM115
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), self._out.fileno(), self._err.fileno()]
            self._connection = _ask(_server(), words, str(cwd or Path.cwd()), dict(env), streams)
        self.pid = number(self._connection)

    def poll(self) -> int | None:
        if self.returncode is None and self._has_ended(0):
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(self.words, timeout or 0)
            self.returncode = number(self._connection)
            self._connection.close()
        return self.returncode

    def _has_ended(self, timeout: float | None) -> bool:
        """Within so many seconds. By poll, as select knows only the first 1,024 files of a process."""
        waiting = select.poll()
        waiting.register(self._connection, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else 1000 * timeout))

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote until its end to the standard output and, unless merged, to the other."""
        self.wait(timeout)
        return self.said(), "" if self._err is self._out else _content(self._err)

    def said(self) -> str:
        """What it has written to the standard output up to now."""
        return _content(self._out)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_restora(
    *words: object,
    cwd: Path | None = None,
    merged: bool = True,
    output: Path | None = None,
    **environment: str,
) -> Started:
    """Starts a command in a process of its own; variables are added to this process's.

    What it says is added to the file `output` where there is one.
    """
    return _start(["-m", "restora", *map(str, words)], cwd, merged, environment, output)


def start_typed(words: list[str], folder: Path, data: Path) -> Started:
    """A command line with `restora` in it, typed in the folder; what it says is added to output.txt there.

    The modules of tests/ are found.
    """
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    output, typed = folder / "output.txt", words[words.index("restora") + 1 :]
    return start_restora(*typed, cwd=folder, output=output, RESTORA_DATA=str(data), PYTHONPATH=path)


def run_restora(
    *words: object, cwd: Path | None = None, timeout: float = 300, merged: bool = False, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a command in a process of its own to its end, whatever the end is."""
    return run_module("restora", *words, cwd=cwd, timeout=timeout, merged=merged, **environment)


def run_module(
    name: str,
    *words: object,
    cwd: Path | None = None,
    timeout: float = 300,
    merged: bool = False,
    **environment: str,
) -> "subprocess.CompletedProcess[str]":
    """Runs a module in a process of its own to its end, whatever the end is."""
    return _ended(_start(["-m", name, *map(str, words)], cwd, merged, environment), timeout)


def run_code(
    code: str, *words: object, cwd: Path | None = None, timeout: float = 300, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs Python code in a process of its own, its outputs as one."""
    return _ended(start_code(code, *words, cwd=cwd, **environment), timeout)


def start_code(code: str, *words: object, cwd: Path | None = None, **environment: str) -> Started:
    """Starts Python code in a process of its own, its outputs as one."""
    return _start(["-c", code, *map(str, words)], cwd, True, environment)


def _start(
    words: list[str],
    cwd: Path | None,
    merged: bool,
    environment: Mapping[str, str],
    output: Path | None = None,
) -> Started:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return Started(words, cwd=cwd, env=env, merged=merged, output=output)


def _ended(process: Started, timeout: float) -> "subprocess.CompletedProcess[str]":
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.words, process.wait(), out, err)


def shell_words() -> str:
    """What a shell script calls as `restora`."""
    return shlex.join([sys.executable, "-I", "-S", __file__, _server()])


def _content(file: IO[bytes]) -> str:
    """Without moving the place where the process writes on."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


@functools.cache
def _server() -> str:
    """The socket of this process's server."""
    folder = tempfile.TemporaryDirectory(prefix="restora-warm-")
    path = str(Path(folder.name, "socket"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    script = str(Path(__file__).with_name("warm_server.py"))
    server = subprocess.Popen([sys.executable, script, path], stdin=subprocess.PIPE, env=environment)

    def end() -> None:
        server.communicate()  # it ends with its standard input
        folder.cleanup()

    atexit.register(end)
    deadline = time.monotonic() + 400
    while not Path(path).exists():
        assert server.poll() is None, "the server of warm starts ended"
        assert time.monotonic() < deadline, "the server of warm starts did not start"
        time.sleep(0.02)
    return path


def _ask(path: str, words: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    request = json.dumps({"words": words, "cwd": cwd, "env": env}).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], streams)
    connection.sendall(request)
    return connection


def number(connection: socket.socket) -> int:
    return int.from_bytes(exactly(connection, 8), "big", signed=True)


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError("the other end is gone")
        data += more
    return data


def run(path: str, words: list[str]) -> int:
    connection = _ask(path, ["-m", "restora", *words], os.getcwd(), dict(os.environ), [0, 1, 2])
    number(connection)
    code = number(connection)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
