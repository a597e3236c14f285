"""`export --push` against a hub on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

from restora.apps.export import main as export
from restora.artifact import hub


class Hub(BaseHTTPRequestHandler):
    """Makes repositories, asks for no large files apart, and keeps what is committed."""

    seen: list[tuple[str, str, bytes]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers.get("Authorization", ""), body))
        answer: dict[str, object] = {"url": "https://huggingface.co/lab/model", "error": "not yours"}
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            small = {"uploadMode": "regular", "shouldIgnore": False}
            answer = {"files": [{"path": each["path"]} | small for each in files]}
        elif self.path.endswith("/validate-yaml"):
            answer = {"errors": [], "warnings": []}
        elif self.path.endswith("/commit/main"):
            answer = {"commitUrl": "https://huggingface.co/lab/model/commit/0123", "commitOid": "0123"}
        self.reply(self.status, answer)

    def do_GET(self) -> None:
        self.reply(200, {"orgs": [], "name": "lab", "sha": "0" * 40, "id": "lab/model"})

    def reply(self, status: int, answer: dict[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Hub,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{made.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        # which the library reads when it is imported, perhaps by a test before
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_URL_HOSTS", frozenset({"127.0.0.1"}))
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield handler
        made.shutdown()


def test_the_folder_is_one_commit(server, run, tmp_path, capsys):
    words = [str(run), str(tmp_path / "model"), "--no-onnx", "--push", "lab/model"]
    assert export(words) == 0
    assert "pushed: https://huggingface.co/lab/model/commit/0123" in capsys.readouterr().out
    paths = [path for path, _, _ in server.seen]
    assert paths == [
        "/api/repos/create",
        "/api/validate-yaml",
        "/api/models/lab/model/preupload/main",
        "/api/models/lab/model/commit/main",
    ]
    assert {token for _, token, _ in server.seen} == {"Bearer hf_of_a_test"}
    assert b"private" in server.seen[0][2]  # as a flag or, since 2.0, as the visibility
    lines = [json.loads(line) for line in server.seen[-1][2].splitlines()]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    assert sent.keys() == {path.name for path in (tmp_path / "model").iterdir()}
    for name in ("weights.safetensors", "model.json"):
        assert sent[name] == (tmp_path / "model" / name).read_bytes()
    card = (tmp_path / "model" / "README.md").read_bytes()
    assert sent["README.md"].startswith(b"---\nlibrary_name: restora\n")
    assert sent["README.md"].endswith(b"---\n\n" + card)


def test_a_refusal_is_said_and_the_folder_stays(server, run, tmp_path):
    server.status = 403
    words = [str(run), str(tmp_path / "model"), "--no-onnx", "--push", "lab/model"]
    with pytest.raises(ValueError, match=r"lab/model was not pushed \(.*403.*HF_TOKEN"):
        export(words)
    assert (tmp_path / "model" / "model.json").is_file()


def test_a_hub_that_does_not_answer_is_no_matter_of_the_token(run, tmp_path, monkeypatch):
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    words = [str(run), str(tmp_path / "model"), "--no-onnx", "--push", "lab/model"]
    with pytest.raises(ValueError, match=r"lab/model was not pushed \(.*the hub did not answer") as error:
        export(words)
    assert "HF_TOKEN" not in str(error.value)


@pytest.mark.parametrize("name", ["model", "a/b/c", "https://huggingface.co/a/b", "lab/"])
def test_what_is_no_repository_is_refused_before_exporting(name):
    with pytest.raises(ValueError, match="USER/NAME"):
        hub.check(name)
