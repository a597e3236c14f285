"""The server of warm_start.py: it has imported what commands import, and forks a process for each of them.

`warm_server.py SOCKET` listens there until its standard input ends.
"""

import atexit
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from warm_start import exactly, number

PRELOADED = (
    *("hydra", "kornia", "lightning.pytorch", "torch._dynamo", "torchmetrics", "wandb"),
    *(f"restora.apps.{name}" for name in ("bench", "evaluate", "export", "prepare", "preview", "report")),
    *(f"restora.apps.{name}" for name in ("restore", "train")),
    *("restora.cli", "restora.training.command", "restora.training.starting", "PIL.PngImagePlugin"),
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


def serve(path: str) -> NoReturn:
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
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _watch(connection)
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
    time_on_small_photos()


def time_on_small_photos() -> None:
    """Exports measure what they write on photos of these sides: half of the time of an export otherwise."""
    from restora.artifact import measuring

    measuring.SMALL, measuring.LARGE = 64, 96


def _ended_child() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _watch(connection: socket.socket) -> NoReturn:
    """Forks once more: this process says how that one ends."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(exactly(connection, int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _leave(_become, request, streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(8, "big", signed=True))
    _, status = os.waitpid(pid, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    os._exit(0)


def _leave(running: Callable[..., None], *arguments: Any) -> NoReturn:
    """Runs something and ends as Python does, but for taking the modules apart: that would copy every page of
    the server, for half a second."""
    code: Any = 0
    try:
        running(*arguments)
    except SystemExit as leaving:
        code = leaving.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = error if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if isinstance(code, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


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
    for asked in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(asked, signal.SIG_DFL)
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
        request = json.loads(exactly(its, int.from_bytes(head, "big")))
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
    _leave(_run, request, streams)


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
        self.pid = number(self.asked)
        exactly(self.asked, 1)
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


if __name__ == "__main__":
    serve(sys.argv[1])
