"""A server that answers as W&B's does, as far as a run and its sync need it, and that can misbehave.

`mode` is read at every request: "well", "503", "close" (the connection is closed without an answer), "hang"
(no answer at all) or "garbage".
"""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ENTITY = {"name": "somebody", "username": "somebody", "id": "RW50", "admin": False, "flags": "{}"}


class WandbServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = "well"
        self.history: dict[str, list[dict[str, Any]]] = {}
        """Run -> the rows that were streamed."""
        self.finished: set[str] = set()
        self.queries: list[str] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "WandbServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _misbehaves(self) -> bool:
        mode = self.server.mode
        if mode == "hang":
            self.server.ending.wait(600)
        if mode in ("hang", "close"):
            self.close_connection = True
            self.connection.close()
        elif mode == "503":
            self._answer(b"not now", status=503)
        elif mode == "garbage":
            self._answer(b"\x00\xff<garbage>{[" * 20)
        return mode != "well"

    def _answer(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if not self._misbehaves():
            self._answer(b"{}")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._misbehaves():
            self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._misbehaves():
            return
        content = json.loads(body or b"{}")
        if "/file_stream" in self.path:
            run = self.path.split("/")[-2]
            for name, part in content.get("files", {}).items():
                if name == "wandb-history.jsonl":
                    self.server.history.setdefault(run, []).extend(map(json.loads, part["content"]))
            if content.get("complete"):
                self.server.finished.add(run)
            self._answer(b"{}")
        else:
            self._answer(json.dumps({"data": self._data(content)}).encode())

    def _data(self, content: dict[str, Any]) -> dict[str, Any]:
        query, given = content.get("query", ""), content.get("variables", {}) or {}
        name = (re.search(r"(?:query|mutation)\s+(\w+)", query) or [None, ""])[1]
        self.server.queries.append(name)
        entity = {"name": "somebody", "organization": {"name": "o"}}
        project = {"name": given.get("project") or "restora", "entity": entity, "id": "P"}
        run = given.get("name") or given.get("run") or "r"
        if name == "UpsertBucket":
            bucket = {"id": "B", "name": run, "displayName": run, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "viewer" in query.lower():
            return {"viewer": {**_ENTITY, "teams": {"edges": []}, "entity": "somebody"}}
        if name == "CreateRunFiles":
            files = [
                {"name": file, "uploadUrl": f"{self.server.url}/storage/{number}"}
                for number, file in enumerate(given.get("files", []))
            ]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            made = {"id": "A", "state": "COMMITTED", "artifactSequence": {"id": "S", "latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        return {}


def wait_for(condition: Any, seconds: float) -> bool:
    """Whether `condition()` became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
