"""Runs the application in uvicorn, on one socket; SIGTERM finishes accepted photos first."""

import asyncio
import contextlib
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from restora.serving import open_files
from restora.serving.service import Service

HEAD_SECONDS = 20.0
"""Seconds within which the head of a request must have arrived."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ValueError if the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(256)  # clients wait while uvicorn starts, and are not refused
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot listen on {host}:{port} ({reason}): give another --port or --host"
        ) from error
    made.set_inheritable(True)
    return made


def address(bound: socket.socket) -> str:
    """The URL to open."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Connection(H11Protocol):
    """A connection that is closed if no whole head of a request comes in time, or if there are too many.

    Otherwise clients that connect and send nothing would hold all files that the process may open.
    """

    most = open_files.MOST // 4

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._last_look: Any = None
        self._looking = self.loop.call_later(HEAD_SECONDS, self._look)
        if len(self.connections) > self.most:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Closes the connection if no request has begun since the last look, and none is being answered."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self._last_look:
            self.transport.close()
            return
        self._last_look = self.cycle
        self._looking = self.loop.call_later(HEAD_SECONDS, self._look)


class Server(uvicorn.Server):
    """SIGTERM and SIGINT stop the service first; a second one stops at once."""

    def __init__(self, config: uvicorn.Config, service: Service, *, grace: float) -> None:
        super().__init__(config)
        self._service, self._grace = service, grace
        self._stopping: asyncio.Task[None] | None = None
        self._running_loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._running_loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by uvicorn's signal handler; the inherited method would end the connections first."""
        if self._service.stopping or self._running_loop is None:
            self.should_exit = self.force_exit = True
            return
        self._service.stopping = True
        self._running_loop.call_soon_threadsafe(self._begin_to_stop)

    def _begin_to_stop(self) -> None:
        self._stopping = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        await self._service.stop(self._grace)
        self.should_exit = True


def run(app: Any, service: Service, bound: socket.socket, *, grace: float, verbose: bool) -> None:
    """Serves until a signal arrives."""
    Connection.most = max(open_files.allowed() // 4, 1)
    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=20,
        server_header=False,
        h11_max_incomplete_event_size=64 << 10,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, service, grace=grace).run(sockets=[bound])
    service.worker.join(timeout=5)
