"""`restora serve` as a process: how it starts, stops and bears a crowd, and what a crash leaves behind."""

import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from served_models import identity
from serving_fixtures import Served
from warm_start import Started, start_restora

from restora.cli import main
from restora.serving import server as serving_server
from restora.serving.app import build_app

RNG = np.random.default_rng(2)


def photo(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[Started, httpx.Client]]:
    """A server on a free port, ready."""
    made = start_restora("serve", *arguments, "--port", "0", "--device", "cpu", **environment)
    while not (found := re.search(r"page: (http://\S+)", made.said())):
        assert made.poll() is None, made.said()
        time.sleep(0.01)
    token = environment.get("RESTORA_TOKEN")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=found[1], timeout=60, trust_env=False, headers=headers) as client:
            for _ in range(1200):
                if client.get("/readyz").status_code == 200:
                    break
                time.sleep(0.05)
            yield made, client
    finally:
        made.kill()
        made.wait(20)


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes about a second for each tile of 128 pixels."""
    return identity(tmp_path_factory.mktemp("models") / "slow", depth=12, width=64)


def send(client: httpx.Client, data: bytes, wait: float = 0) -> httpx.Response:
    return client.post(f"/v1/restorations?wait={wait}", files={"photo": ("a.png", data)})


def test_sigterm_finishes_what_was_begun_and_lets_it_be_fetched(slow_model: Path) -> None:
    with process(str(slow_model), "--tile", "128") as (server, client):
        first = send(client, photo(200, 200)).json()
        second = send(client, photo(64, 64)).json()
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = send(client, photo())
        assert (refused.status_code, refused.json()["code"]) == (503, "not-ready")
        assert "retry-after" in refused.headers
        assert client.get("/readyz").status_code == 503
        for job in (first, second):
            while client.get(job["links"]["self"]).json()["state"] in ("waiting", "running"):
                time.sleep(0.05)
            assert client.get(job["links"]["photo"]).status_code == 200
        assert server.wait(30) == 0


def test_sigterm_hands_back_what_it_cannot_finish_in_time(slow_model: Path) -> None:
    with process(str(slow_model), "--tile", "128", "--grace", "0.5") as (server, client):
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(send, client, photo(1200, 600), 60) for _ in range(2)]
            time.sleep(1)
            server.send_signal(signal.SIGTERM)
            answers = [answer.result() for answer in waiting]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all("send it again" in answer.json()["detail"] for answer in answers)
        assert server.wait(30) == 0


def test_a_killed_server_leaves_nothing_and_starts_again(slow_model: Path, tmp_path: Path) -> None:
    with process(str(slow_model), TMPDIR=str(tmp_path)) as (server, client):
        job = send(client, photo(600, 600)).json()
        assert "id" in job
        server.kill()
        server.wait(20)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # torch makes a folder
    with process(str(slow_model), TMPDIR=str(tmp_path)) as (_, client):
        gone = client.get(f"/v1/restorations/{job['id']}")
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown")
        assert send(client, photo(), wait=60).status_code == 200


def test_a_token_is_asked_for_by_everything_but_the_page_and_health(model_folders: dict[str, Path]) -> None:
    with process(str(model_folders["denoise"]), RESTORA_TOKEN="s3cret") as (_, client):
        assert send(client, photo(), wait=60).status_code == 200
        for headers in (
            {"Authorization": ""},
            {"Authorization": "Bearer no"},
            {"Authorization": "Basic s3cret"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/restorations/x/photo"):
                answer = client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
            for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
                assert client.get(path, headers=headers).status_code == 200


def test_what_cannot_be_served_is_one_line(
    model_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], served: Served
) -> None:
    port = served.url.rpartition(":")[2]
    model = str(model_folders["denoise"])
    for arguments, words in (
        ([str(tmp_path / "none")], "a model is a model folder"),
        ([str(tmp_path)], "is neither a model folder (model.json) nor a run (run.json)"),
        ([model, "--port", port], "give another --port"),
        ([model, "--port", "70000"], "give another --port"),
        ([model, "--host", "203.0.113.7"], "give another --port or --host"),
        ([model, "--queue", "0"], "--queue must be a whole number of 1 or more, got 0"),
        ([model, "--batch", "0"], "--batch must be a whole number of 1 or more, got 0"),
        ([model, "--tile", "-3"], "--tile must be a whole number of 0 or more, got -3"),
        ([model, "--keep", "-5"], "--keep must be a number above 0, got -5"),
        ([model, "--max-megapixels", "nan"], "--max-megapixels must be a number above 0, got nan"),
        ([model, "--grace", "-1"], "--grace must be a number of seconds from 0, got -1"),
        ([model, "--token", ""], "--token is empty"),
        ([model, "--token", "schlüssel"], "--token has spaces at an end, or characters that are not ASCII"),
        ([model, "--token", "s3cret\n"], "--token has spaces at an end"),
        ([model, "--task", "jpeg"], "--task jpeg: each source states a task of its own: leave it out"),
        ([model, "--cors", "example.org/"], "--cors takes an origin such as"),
        ([model, "--device", "cuda:9"], "cuda:9"),
    ):
        assert main(["serve", *arguments]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1


def test_two_hundred_at_once_are_all_answered(served: Served) -> None:
    """Against a queue of 16: restored or asked to come again, none lost, none with an error of ours."""
    data = photo(160, 120)
    start = threading.Barrier(200)

    def one(_: int) -> tuple[int, bytes]:
        start.wait()
        answer = client.post(f"{served.url}/v1/restorations?wait=100", files={"photo": ("a.png", data)})
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status_code, answer.content

    everybody = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # each has its own
    with (
        httpx.Client(timeout=120, trust_env=False, verify=False, limits=everybody) as client,
        ThreadPoolExecutor(200) as pool,
    ):
        answers = list(pool.map(one, range(200)))
    counts = Counter(status for status, _ in answers)
    assert set(counts) <= {200, 429}
    assert counts[200] >= 16
    expected = np.asarray(Image.open(io.BytesIO(data)))
    for status, content in answers:
        if status == 200:
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), expected)


@pytest.mark.slow
def test_memory_is_flat_over_hundreds_of_photos(served: Served) -> None:
    def resident() -> float:
        figures = served.client.get("/metrics").text
        return float(re.findall(r"^process_resident_memory_bytes (\S+)$", figures, re.M)[0]) / 1e6

    held: list[float] = []
    data = [photo(64 + index % 7, 48 + index % 5) for index in range(35)]
    with ThreadPoolExecutor(4) as pool:  # each request waits 40 ms for the network's acknowledgement
        for _ in range(6):
            answers = pool.map(lambda index: served.post(data[index % len(data)], wait=60), range(100))
            assert [answer.status_code for answer in answers] == [200] * 100
            held.append(resident())
    assert max(held[2:]) - held[1] < 15, held


def test_results_leave_files_for_the_next_photo(model_folders: dict[str, Path]) -> None:
    """Where few files may be open, old results go before photos are refused."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 120))"
    script = (
        f"{few}\nfrom restora.cli import main\nmain(['serve', {str(model_folders['denoise'])!r}, '--port=0'])"
    )
    server = subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        address = next(line for line in server.stdout if line.startswith("page: "))
        with httpx.Client(base_url=address.split()[1], timeout=60, trust_env=False) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)
            ids = []
            for _ in range(60):
                answer = send(client, photo(8, 8), wait=60)
                assert answer.status_code == 200, answer.text
                ids.append(answer.headers["X-Restoration-Id"])
            assert client.get(f"/v1/restorations/{ids[-1]}").status_code == 200
            assert client.get(f"/v1/restorations/{ids[0]}").status_code == 404
    finally:
        server.kill()
        server.wait(20)


def test_connections_without_a_request_are_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(serving_server.Connection, "most", 5)
    bound = serving_server.listen("127.0.0.1", 0)
    config = uvicorn.Config(build_app(served.service), http=serving_server.Connection, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        for begun in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"):
            with socket.create_connection(bound.getsockname(), timeout=10) as one:
                one.sendall(begun)
                answer = b""
                while more := one.recv(1 << 16):
                    answer += more
                assert answer.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")
        monkeypatch.setattr(serving_server, "HEAD_SECONDS", 60.0)
        held = [socket.create_connection(bound.getsockname(), timeout=10) for _ in range(5)]
        with socket.create_connection(bound.getsockname(), timeout=10) as one, suppress(ConnectionError):
            assert one.recv(1) == b""
        for one in held:
            one.close()
    finally:
        server.should_exit = True
        thread.join(20)
