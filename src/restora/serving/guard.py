"""Access checks for requests and common headers for responses: ASGI layers around the application.

`Guard` is the outermost, `Inner` is inside of the layer for CORS: pages of allowed sites can read its errors.

Note: a page in the user's browser can reach a server on a loopback address, by a form that posts to it or by
a host name that resolves to it. So a foreign `Origin` is refused, and on a loopback address a foreign `Host`
too.
"""

import hmac
import logging
from collections.abc import Collection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restora.serving.answers import problem_response
from restora.serving.metrics import Metrics
from restora.serving.problems import Problem

logger = logging.getLogger(__name__)
_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))
"""Methods that are counted by name: a client can make up any number of others."""
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Makes the browser block all requests of the page to other servers."""
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses foreign requests, answers HEAD, adds security headers and counts responses."""

    def __init__(self, app: ASGIApp, *, local: bool, origins: Collection[str], metrics: Metrics) -> None:
        self.app, self.local = app, local
        self.origins, self.metrics = frozenset(origins), metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = str(scope["path"]), str(scope["method"])
        head = method == "HEAD"
        if head:  # answered like GET, without the body
            scope = {**scope, "method": "GET"}

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store" if path.startswith("/v1/") else "no-cache")
                self._count(scope, method, int(message["status"]))
            elif head:
                message = {**message, "body": b""}
            await send(message)

        asked = Headers(scope=scope)
        problem = self._refusal(asked)
        app = self.app if problem is None else problem_response(problem, asked)
        await app(scope, receive, send_more)

    def _count(self, scope: Scope, method: str, status: int) -> None:
        route: Any = scope.get("route")
        template = str(getattr(route, "path", "")) or "other"
        self.metrics.answers[method if method in _METHODS else "other", template, status] += 1

    def _refusal(self, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if self.local and _name(host) not in LOOPBACK:
            detail = f"only requests from this machine are accepted, got host {host!r}: start with --host"
            return Problem(403, "foreign-page", detail)
        origin = headers.get("origin")
        own = bool(host) and origin is not None and _split(origin).netloc == host
        if origin is not None and not own and origin not in self.origins:
            detail = f"pages of {origin} may not use this server: start the server with --cors {origin}"
            return Problem(403, "foreign-page", detail)
        return None


class Inner:
    """Refuses requests without the token, and answers those that raise what no handler knows."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        problem = self._refusal(str(scope["path"]), asked)
        app = self.app if problem is None else problem_response(problem, asked)
        try:
            await app(scope, receive, send_noting)
        except Exception as error:
            if started:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            problem = Problem(500, "internal", f"{type(error).__name__}: see the server's log")
            await problem_response(problem, asked)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> Problem | None:
        if self.token is None or not (path.startswith("/v1/") or path == "/metrics"):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return None
        return Problem(401, "token", "a token is required: send the header Authorization: Bearer TOKEN")


def _name(host: str) -> str:
    """A Host header without its port."""
    return (_split(f"//{host}").hostname or "").lower()


def _split(address: str) -> SplitResult:
    """The parts of an address; all empty if it is malformed."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
