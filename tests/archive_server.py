"""A web server on loopback that serves files from memory as the real ones do, and misbehaves on demand.

It knows byte ranges and If-Range. `plans` says what the next requests meet, one each; when it is used up all
goes well.
"""

import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True)
class Plan:
    """What one request meets: the connection is cut after `cut` bytes of the answer, stalls there for `stall`
    seconds, or is answered by `status` alone, or by a web `page`; `whole` ignores a range; `announce` is a
    false length; `flip` inverts one byte; `rate` is in bytes per second; `marked` is whether an ETag is sent.
    """

    cut: int | None = None
    stall: float = 0.0
    status: int | None = None
    page: bool = False
    marked: bool = True
    whole: bool = False
    announce: int | None = None
    flip: int | None = None
    rate: float | None = None


@dataclass
class Request:
    """What was asked for, and how many bytes of it were sent."""

    name: str
    range: str | None
    if_range: str | None
    sent: int = 0


@dataclass
class ArchiveServer:
    """Serves `files` under `url`; use it as a context."""

    files: dict[str, bytes]
    plans: list[Plan] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "ArchiveServer":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/data"


def _handler(server: ArchiveServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plan = server.plans.pop(0) if server.plans else Plan()
            name = self.path.rpartition("/")[2]
            request = Request(name, self.headers.get("Range"), self.headers.get("If-Range"))
            server.requests.append(request)
            if plan.status is not None or name not in server.files:
                self.send_error(plan.status or 404)
                return
            if plan.page:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(b"<html>please log in</html>")
                return
            body = server.files[name]
            mark = f'"{hash(body):x}"'
            start = 0
            if request.range and not plan.whole and request.if_range in (None, mark):
                start = int(request.range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(plan.announce or len(body) - start))
            if plan.marked:
                self.send_header("ETag", mark)
            self.end_headers()
            self._send(body[start:], plan, request)

        def _send(self, body: bytes, plan: Plan, request: Request) -> None:
            if plan.flip is not None and plan.flip < len(body):
                body = body[: plan.flip] + bytes([body[plan.flip] ^ 0xFF]) + body[plan.flip + 1 :]
            end = len(body) if plan.cut is None else plan.cut
            step = 1 << 16 if plan.rate is None else 1 << 12
            try:
                for at in range(0, end, step):
                    request.sent += self.wfile.write(body[at : min(at + step, end)])
                    if plan.rate is not None:
                        time.sleep(step / plan.rate)
                if plan.stall:
                    self.wfile.flush()
                    time.sleep(plan.stall)
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file that holds `members` as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A tar file that holds `members` as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()
