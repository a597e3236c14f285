"""`python -m restora` and `python -c` as processes of their own, without the seconds that imports take.

A server has imported what the commands import; for each command it forks a process that becomes it, with its
own folder, environment, output and signals. Whatever is about a fresh start itself (what is imported when,
variables that libraries read as they are loaded) is tested with fresh processes.

As a script: `warm_start.py serve SOCKET` is the server, `warm_start.py run SOCKET WORDS…` runs a command in
the folder, the environment and the streams of whoever calls it.
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
import types
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PRELOADED = (
    *("hydra", "kornia", "lightning.pytorch", "torch._dynamo", "torchmetrics", "wandb"),
    *(f"restora.apps.{name}" for name in ("bench", "evaluate", "export", "prepare", "preview", "report")),
    *(f"restora.apps.{name}" for name in ("restore", "train")),
    *("restora.serving.app", "restora.training.run", "restora.training.build"),
)


class Started:
    """A command that runs: what `subprocess.Popen` is for a fresh one, its output kept in files."""

    def __init__(self, words: list[str], *, cwd: Path | None, env: Mapping[str, str], merged: bool) -> None:
        self.words = words
        self.returncode: int | None = None
        # open for as long as this object is: read when the process has ended
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._err = self._out if merged else tempfile.TemporaryFile()  # noqa: SIM115
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), self._out.fileno(), self._err.fileno()]
            self._connection = _ask(_server(), words, str(cwd or Path.cwd()), dict(env), streams)
        self.pid = _number(self._connection)

    def poll(self) -> int | None:
        if self.returncode is None and self._has_ended(0):
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(self.words, timeout or 0)
            self.returncode = _number(self._connection)
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
    *words: object, cwd: Path | None = None, merged: bool = True, **environment: str
) -> Started:
    """Starts a command in a process of its own; variables are added to this process's."""
    return _start(["-m", "restora", *map(str, words)], cwd, merged, environment)


def run_restora(
    *words: object, cwd: Path | None = None, timeout: float = 300, merged: bool = False, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a command in a process of its own to its end, whatever the end is."""
    return _ended(_start(["-m", "restora", *map(str, words)], cwd, merged, environment), timeout)


def run_code(
    code: str, *words: object, cwd: Path | None = None, timeout: float = 300, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs Python code in a process of its own, its outputs as one."""
    return _ended(_start(["-c", code, *map(str, words)], cwd, True, environment), timeout)


def _start(words: list[str], cwd: Path | None, merged: bool, environment: Mapping[str, str]) -> Started:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return Started(words, cwd=cwd, env=env, merged=merged)


def _ended(process: Started, timeout: float) -> "subprocess.CompletedProcess[str]":
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.words, process.wait(), out, err)


def shell_words() -> str:
    """What a shell script calls as `restora`."""
    return shlex.join([sys.executable, "-I", "-S", __file__, "run", _server()])


def _content(file: IO[bytes]) -> str:
    """Without moving the place where the process writes on."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


@functools.cache
def _server() -> str:
    """The socket of this process's server."""
    folder = tempfile.TemporaryDirectory(prefix="restora-warm-")
    path = str(Path(folder.name, "socket"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", path], stdin=subprocess.PIPE, env=environment
    )

    def end() -> None:
        server.communicate()  # it ends with its standard input
        folder.cleanup()

    atexit.register(end)
    deadline = time.monotonic() + 120
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


def _number(connection: socket.socket) -> int:
    return int.from_bytes(_exactly(connection, 8), "big", signed=True)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError("the other end is gone")
        data += more
    return data


# --- the server ---------------------------------------------------------------------------------------------


def serve(path: str) -> None:
    import gc
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(16)
    os.rename(path + ".new", path)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _watch(connection)
            return
        connection.close()
        while _ended_child():
            pass


def _ended_child() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _watch(connection: socket.socket) -> None:
    """Forks once more: this process says how that one ends."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request, streams)
        return
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(8, "big", signed=True))
    _, status = os.waitpid(pid, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    import runpy

    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    media = sys.modules["wandb.sdk.data_types._private"].MEDIA_TMP
    media.name = tempfile.mkdtemp(dir=Path(sys.argv[2]).parent)  # W&B deletes it at the end of each process
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    own = [entry for entry in request["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [request["cwd"], *own, *(entry for entry in sys.path[1:] if entry not in own)]
    kind, code, *arguments = request["words"]
    if kind == "-m":
        sys.argv = [code, *arguments]
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *arguments]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), module.__dict__)


def run(path: str, words: list[str]) -> int:
    connection = _ask(path, ["-m", "restora", *words], os.getcwd(), dict(os.environ), [0, 1, 2])
    _number(connection)
    code = _number(connection)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
