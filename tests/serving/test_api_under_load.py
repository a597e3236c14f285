"""The server under load and after faults: estimated times, internal errors, slow encoding."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from serving_fixtures import GatedDnCNN, Served, gated_models, running
from test_api import noise, png, until

from restora.serving import api, jobs
from restora.serving.jobs import JobStore
from restora.serving.limits import Limits
from restora.serving.rendering import render


def test_the_time_left_does_not_count_the_preparation(gated: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job = gated.service.store.jobs[gated.post(png(noise())).json()["id"]]
    until(gated, job.id, "running")
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=job.started)
    monkeypatch.setattr(jobs, "time", clock)
    job.model.pace = 50 / job.megapixels
    assert job.seconds_left(0) == 50
    left = []
    for seconds, done in ((40, 1), (1, 2), (1, 3), (0.5, 3)):  # 40 s of preparation, then a tile a second
        clock.now += seconds
        if done > job.tiles_done:
            job.tick(done, 100)
        left.append(job.seconds_left(0))
    assert left == pytest.approx([49.5, 98, 97, 96.5])


def test_an_internal_error_is_a_counted_problem(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the headers of every response, so that also pages of allowed sites can read it."""
    friend = {"Origin": "https://friend.example"}
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    with running(gated_models(), Limits(), origins=["https://friend.example"]) as held:
        monkeypatch.setattr(JobStore, "get", lambda *_: 1 / 0)
        answer = held.client.get("/v1/restorations/some", headers=friend)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.json()["detail"] == "ZeroDivisionError: see the server's log"
        assert "ZeroDivisionError" in caplog.text
        assert answer.headers["access-control-allow-origin"] == friend["Origin"]
        assert "content-security-policy" in answer.headers
        counted = {(route, status) for _, route, status in held.service.metrics.answers}
        assert ("/v1/restorations/{job_id}", 500) in counted


def test_results_that_are_being_written_hold_up_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has forty threads for short tasks: more requests than that wait for slow encoding."""
    job = served.post(png(noise()), wait=30).headers["X-Restoration-Id"]
    go_on = threading.Event()
    monkeypatch.setattr(api, "render", lambda *given, **named: (go_on.wait(60), render(*given, **named))[1])
    with ThreadPoolExecutor(50) as pool:
        waiting = [
            pool.submit(httpx.get, f"{served.url}/v1/restorations/{job}/photo", timeout=60) for _ in range(50)
        ]
        time.sleep(1)
        try:
            assert served.client.get("/page/main.js", timeout=20).status_code == 200
        finally:
            go_on.set()
        assert {one.result().status_code for one in waiting} == {200}


def test_a_photo_that_arrives_as_the_server_stops_is_not_waited_for(
    gated: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is closed while the photo is received: its job would wait for ever, and the stop with it."""
    digest = api.digest_of
    monkeypatch.setattr(api, "digest_of", lambda form: (gated.service.queue.close(), digest(form))[1])
    answer = gated.client.post(
        "/v1/restorations", files={"photo": ("photo.png", png(noise()))}, headers={"Idempotency-Key": "one"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
    assert not gated.service.store.jobs
