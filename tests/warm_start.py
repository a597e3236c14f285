"""`python -m restora` and `python -c` as processes of their own, without the seconds that imports take.

A server has imported what the commands import; for each command it forks a process that becomes it, with its
own folder, environment, output and signals. What such a command starts of restora itself (the process that
starts jobs, further processes of a distributed run) is forked too, and is its child as ever. Whatever is
about a fresh start itself (what is imported when, variables that libraries read as they are loaded) is tested
with fresh processes.

As a script: `warm_start.py serve SOCKET` is the server, `warm_start.py run SOCKET WORDS…` runs a command in
the folder, the environment and the streams of whoever calls it.
"""

import atexit
import ctypes
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
from typing import IO, Any, NoReturn

PRELOADED = (
    *("hydra", "kornia", "lightning.pytorch", "torch._dynamo", "torchmetrics", "wandb"),
    *(f"restora.apps.{name}" for name in ("bench", "evaluate", "export", "prepare", "preview", "report")),
    *(f"restora.apps.{name}" for name in ("restore", "train")),
    *("restora.serving.app", "restora.training.run", "restora.training.build"),
    *("restora.sweeping.command", "skimage.data", "skimage.metrics"),
    # what a run of W&B imports: two seconds
    *(
        "requests",
        "wandb.analytics.opentelemetry.opentelemetry_proxy",
        "wandb.apis.public",
        "wandb.sdk.launch",
    ),
    *(f"opentelemetry.exporter.otlp.proto.http.{name}_exporter" for name in ("metric", "_log")),
)
_folder: Path
"""The server's."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


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

    global _folder
    _folder = Path(path).parent
    _preload()
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(16)
    os.rename(path + ".new", path)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            while _ended_child():  # so that their times are among this process's
                pass
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _watch(connection)
            return
        connection.close()
        while _ended_child():
            pass


def _preload() -> None:
    """Imports what commands import, and composes as they all do once."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    from restora import registry
    from restora.config import compose

    for kind in registry.PACKAGES:
        registry.names(kind)
    compose("train")


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
    """Runs what is asked for in this process, with a process beside it that forks what it starts itself."""
    _fork_what_is_started(streams)
    _run(request, streams)


def _fork_what_is_started(streams: list[int]) -> None:
    nursery = _nursery(streams)

    class Popen(_Forked):
        asked, owner = nursery, os.getpid()

    subprocess.Popen = Popen


def _run(request: dict[str, Any], streams: list[int]) -> None:
    import runpy

    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    media = sys.modules["wandb.sdk.data_types._private"].MEDIA_TMP
    media.name = tempfile.mkdtemp(dir=_folder)  # W&B deletes it at the end of each process
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only

    rank_zero_only.rank = _get_rank() or 0  # which Lightning reads as it is loaded
    own = [entry for entry in request["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    kind, code, *arguments = request["words"]
    first = {"-P": [], "script": [str(Path(code).parent)]}.get(kind, [request["cwd"]])
    sys.path[:] = [*first, *own, *(entry for entry in sys.path[1:] if entry not in own)]
    if kind == "-P":
        kind, code, *arguments = code, *arguments
    if kind == "-m":
        sys.argv = [code, *arguments]
        if code == "restora.sweeping.server":
            _start_jobs()
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    elif kind == "script":
        sys.argv = [code, *arguments]
        runpy.run_path(code, run_name="__main__")
    else:
        sys.argv = [kind, *arguments]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), module.__dict__)


def _start_jobs() -> NoReturn:
    """The process that starts jobs, whose distributed jobs start their further processes by forks too."""
    from restora.sweeping import server

    class Server(server.Server):
        def fork(self, request: dict[str, Any]) -> int:
            pid = super().fork(request)
            if pid == 0 and '"ddp"' in Path(request["start"], "run.json").read_text(encoding="utf-8"):
                _fork_what_is_started([])
            return pid

    server.Server = Server  # type: ignore[misc]
    sys.exit(server.main())


# --- what a command starts ----------------------------------------------------------------------------------


def _nursery(streams: list[int]) -> socket.socket:
    """A child that has done nothing yet: it forks what this process starts, asked by the socket."""
    ours, its = socket.socketpair()
    starter = os.getpid()
    if os.fork():
        its.close()
        return ours
    ours.close()
    for stream in streams:
        os.close(stream)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while os.getppid() == starter:
        head, streams, _, _ = socket.recv_fds(its, 8, 3)
        if not head:
            break
        request = json.loads(_exactly(its, int.from_bytes(head, "big")))
        if (between := os.fork()) == 0:
            pid = os.fork()
            if pid == 0:
                its.close()
                _be_child_of(starter, request, streams)
            its.sendall(pid.to_bytes(8, "big"))
            os._exit(0)  # so that it becomes a child of the starter
        for stream in streams:
            os.close(stream)
        os.waitpid(between, 0)
        its.sendall(b".")
    os._exit(0)


def _be_child_of(starter: int, request: dict[str, Any], streams: list[int]) -> NoReturn:
    while os.getppid() != starter:
        time.sleep(0.001)
    if request["session"]:
        os.setsid()
    _run(request, streams)
    sys.exit(0)


class _Forked(subprocess.Popen):
    """Processes of restora are forked, as children of this one; all others are started as they are."""

    asked: socket.socket
    owner: int

    def _execute_child(self, args: Any, *rest: Any) -> None:
        _, preexec, _, passed, cwd, env, _, _, shell, *pipes = rest[:15]
        words = _words_of_restora(args)
        if words is None or os.getpid() != self.owner or preexec or passed or shell:
            super()._execute_child(args, *rest)
            return
        session = rest[20]
        streams = [own if pipe == -1 else pipe for own, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        request["session"] = session
        content = json.dumps(request).encode()
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        socket.send_fds(self.asked, [len(content).to_bytes(8, "big")], streams)
        self.asked.sendall(content)
        self.pid = _number(self.asked)
        _exactly(self.asked, 1)
        prctl(_PR_SET_CHILD_SUBREAPER, 0)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _words_of_restora(args: Any) -> list[str] | None:
    """What `_run` takes, where the command is Python with a module or a script of restora."""
    if isinstance(args, str | bytes) or list(args[:1]) != [sys.executable]:
        return None
    words = [str(word) for word in args[1:] if word != "-u"]
    module = words[1:] if words[:1] == ["-P"] else words
    if module[:1] == ["-m"] and module[1].partition(".")[0] == "restora":
        return words
    if words and words[0].endswith(".py") and "restora" in Path(words[0]).parts:
        return ["script", *words]
    return None


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
