"""The HTTP API as a program uses it: photos come back whole, each step has its answer."""

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_fixtures import GatedDnCNN, Served, gated_models, running

from restora.artifact.photo_pixels import restore_photo
from restora.artifact.restorer import Restorer
from restora.photos.files import Photo
from restora.serving import worker
from restora.serving.api import _events
from restora.serving.jobs import JobStore
from restora.serving.limits import Limits

RNG = np.random.default_rng(0)


def noise(width: int = 40, height: int = 24, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(values: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG", **options)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def until(served: Served, job_id: str, *states: str) -> dict:
    for _ in range(600):
        held = served.client.get(f"/v1/restorations/{job_id}").json()
        if held["state"] in states:
            return held
        time.sleep(0.02)
    raise AssertionError(held)


def test_the_photo_itself_comes_when_the_client_waits(served: Served) -> None:
    values = noise()
    answer = served.post(png(values), wait=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert 'filename="photo.png"' in answer.headers["content-disposition"]
    np.testing.assert_array_equal(pixels(answer.content), values)


def test_an_id_comes_at_once_and_leads_to_everything(served: Served) -> None:
    answer = served.post(png(noise()), model="upscale")
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["links"]["self"]
    held = until(served, answer.json()["id"], "done")
    assert held["result"] == {"width": 80, "height": 48, "sigma": None}
    assert held["progress"]["fraction"] == 1
    photo = served.client.get(held["links"]["photo"])
    assert pixels(photo.content).shape == (48, 80, 3)
    assert served.client.delete(held["links"]["self"]).status_code == 204
    assert served.client.get(held["links"]["self"]).status_code == 404


@pytest.mark.parametrize("name", ["png", "tiff", "webp", "jpeg", "bmp", "ppm"])
def test_any_format_can_be_asked_for(served: Served, name: str) -> None:
    values = noise()
    answer = served.post(png(values), wait=30)
    again = served.client.get(f"/v1/restorations/{answer.headers['x-restoration-id']}/photo?format={name}")
    assert Image.open(io.BytesIO(again.content)).format == name.upper()
    asked = served.post(png(values), wait=30, format=name)
    assert asked.content == again.content
    if name not in ("webp", "jpeg"):
        np.testing.assert_array_equal(pixels(again.content), values)


def test_a_portrait_of_a_phone_keeps_its_exif_and_its_turn(served: Served) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    out = io.BytesIO()
    Image.fromarray(noise(48, 32)).save(out, "JPEG", exif=exif)
    answer = served.post(out.getvalue(), wait=30)
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size, image.getexif()[0x0112], image.getexif()[0x010F]) == (
        "JPEG",
        (48, 32),
        6,
        "Maker",
    )
    held = served.client.get(f"/v1/restorations/{answer.headers['x-restoration-id']}").json()
    for which in ("photo", "result"):  # as a viewer shows it
        assert (held[which]["width"], held[which]["height"]) == (32, 48)
    stripped = Image.open(io.BytesIO(served.post(out.getvalue(), wait=30, metadata="strip").content))
    assert (stripped.size, dict(stripped.getexif())) == ((32, 48), {})
    shown = served.client.get(f"/v1/restorations/{answer.headers['x-restoration-id']}/photo?format=preview")
    assert Image.open(io.BytesIO(shown.content)).size == (32, 48)


def test_sixteen_bits_and_transparency_stay(served: Served) -> None:
    import cv2

    deep = RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    deep[..., 3] |= 1
    answer = served.post(cv2.imencode(".png", deep)[1].tobytes(), wait=30)
    back = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back, deep)


def test_strength_mixes_the_photo_with_the_result(served: Served) -> None:
    values = noise()
    mask = np.full((24, 40), 255, np.uint8)
    mask[:, :2] = 0
    files = {"photo": ("a.png", png(values)), "mask": ("m.png", png(mask))}
    answer = served.client.post("/v1/restorations?wait=30", files=files, data={"model": "fill"})
    assert (pixels(answer.content)[:, 2:] == 64).all()
    link = f"/v1/restorations/{answer.headers['x-restoration-id']}/photo?strength=0.25"
    expected = np.round(values * 0.75 + 64 * 0.25)
    expected[:, :2] = values[:, :2]
    assert np.abs(pixels(served.client.get(link).content) - expected).max() <= 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_only_the_hole_changes_whichever_way_the_photo_lies(served: Served, turn: int) -> None:
    values = noise(40, 24)
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = Image.fromarray(values)
    photo = png(values, exif=exif)
    from PIL import ImageOps

    looked_at = ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))
    mask = np.zeros((looked_at.height, looked_at.width), np.uint8)
    mask[2:7, 3:12] = 255
    files = {"photo": ("a.png", photo), "mask": ("m.png", png(mask))}
    answer = served.client.post(
        "/v1/restorations?wait=30", files=files, data={"model": "fill", "mask_orientation": "upright"}
    )
    assert answer.status_code == 200, answer.text
    after = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(answer.content))))
    before = np.asarray(looked_at)
    assert (after[mask > 0] == 64).all()
    np.testing.assert_array_equal(after[mask == 0], before[mask == 0])
    assert upright.size == (40, 24)


def test_models_say_what_they_do_and_show_an_example(served: Served) -> None:
    held = served.client.get("/v1/models").json()
    assert [model["name"] for model in held["models"]] == ["denoise", "upscale", "fill", "conditioned"]
    assert [model["needs"] for model in held["models"]] == ["nothing", "nothing", "mask", "noise level"]
    assert all(model["seconds_per_megapixel"] > 0 for model in held["models"])
    example = held["models"][1]["example"]
    sizes = [
        pixels(served.client.get(f"{example}?side={side}").content).shape for side in ("before", "after")
    ]
    assert sizes == [(64, 64, 3), (128, 128, 3)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "nobody"}, "there is no model"),
        ({"model": "fill"}, "send `mask`"),
        ({"model": "conditioned"}, "send `sigma`"),
        ({"sigma": "25"}, "takes no noise level"),
        ({"model": "conditioned", "sigma": "nan"}, "from 0 to 255"),
        ({"strength": "2"}, "from 0 to 1"),
        ({"format": "gif"}, "one of"),
        ({"colour": "red"}, "no field 'colour'"),
    ],
)
def test_a_field_without_meaning_is_refused_with_the_fix(served: Served, fields: dict, words: str) -> None:
    answer = served.post(png(noise()), wait=5, **fields)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["code"] == "bad-option"
    assert words in answer.json()["detail"]


def test_a_request_that_no_address_takes_has_a_documented_code(served: Served) -> None:
    answer = served.client.put("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (405, "bad-request")
    assert "`bad-request`" in served.client.get("/openapi.json").json()["info"]["description"]


def test_the_noise_level_of_one_request_does_not_reach_the_next(served: Served) -> None:
    assert served.post(png(noise()), wait=30, model="conditioned", sigma="25").status_code == 200
    assert served.post(png(noise()), wait=30, model="conditioned").status_code == 422


def test_the_noise_level_is_estimated_when_asked_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []

    def spy(photo: Photo, restorer: Restorer, **options: Any) -> Photo:
        levels.append(restorer.sigma)
        return restore_photo(photo, restorer, **options)

    monkeypatch.setattr(worker, "restore_photo", spy)
    grain = np.random.default_rng(0).normal(128, 20, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    answer = served.post(png(grain), wait=30, model="conditioned", sigma="auto")
    assert levels == [pytest.approx(20, abs=1)]
    held = served.client.get(f"/v1/restorations/{answer.headers['x-restoration-id']}").json()
    assert held["result"]["sigma"] == round(levels[0], 1)
    tiny = served.post(png(noise()[:8, :8]), wait=30, model="conditioned", sigma="auto")
    assert (tiny.status_code, "give it as a number" in tiny.json()["detail"]) == (422, True)


def next_event(lines: Iterator[str]) -> dict:
    """The next server-sent event of a stream."""
    fields: dict = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            break
    return {**fields, "data": json.loads(fields["data"])}


def test_events_tell_each_step_and_go_on_where_they_broke_off(gated: Served) -> None:
    job = gated.post(png(noise(144, 32))).json()
    until(gated, job["id"], "running")
    events = []
    with gated.client.stream("GET", job["links"]["events"]) as answer:
        lines = answer.iter_lines()
        for done in (0, 1, 2, 3):
            if done:
                GatedDnCNN.gate.release()
            while not events or events[-1]["data"]["progress"]["tiles_done"] < done:
                events.append(next_event(lines))
        while events[-1]["event"] != "done":
            events.append(next_event(lines))
    assert {event["data"]["progress"]["tiles_done"] for event in events} == {0, 1, 2, 3}
    assert (events[-1]["event"], events[-1]["data"]["state"]) == ("done", "done")
    assert [int(event["id"]) for event in events] == sorted({int(event["id"]) for event in events})
    later = gated.client.get(job["links"]["events"], headers={"Last-Event-ID": events[-2]["id"]})
    assert later.text.count("data:") == 1
    assert next_event(iter(later.text.splitlines()))["id"] == events[-1]["id"]


def test_a_photo_that_is_finished_while_an_event_is_sent_has_its_last_event() -> None:
    async def heard() -> list[str]:
        job: Any = SimpleNamespace(version=1, state="running", wake=None)
        service: Any = SimpleNamespace(store=JobStore(limits=Limits()))
        stream = _events(service, job, -1, lambda _: {})
        said = [await anext(stream)]
        job.version, job.state = 2, "done"
        return said + [event async for event in stream]

    said = asyncio.run(heard())
    assert [event.split()[3] for event in said] == ["progress", "done"]


def test_a_running_photo_is_cancelled_between_two_tiles(gated: Served) -> None:
    job = gated.post(png(noise(320, 32))).json()
    until(gated, job["id"], "running")
    GatedDnCNN.gate.release()
    assert gated.client.delete(job["links"]["self"]).status_code == 204
    GatedDnCNN.gate.release()
    held = until(gated, job["id"], "cancelled")
    assert held["progress"]["tiles_done"] <= 2
    gone = gated.client.get(job["links"]["photo"])
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")


def test_a_waiting_photo_is_cancelled_at_once_and_gives_its_place_back(gated: Served) -> None:
    running, second, third = (gated.post(png(noise())).json() for _ in range(3))
    until(gated, running["id"], "running")
    third = third if "id" in third else gated.post(png(noise())).json()
    assert gated.client.get(third["links"]["self"]).json()["position"] == 2
    gated.client.delete(second["links"]["self"])
    assert gated.client.get(second["links"]["self"]).json()["state"] == "cancelled"
    assert gated.client.get(third["links"]["self"]).json()["position"] == 1
    assert gated.post(png(noise())).status_code == 202


def test_a_full_queue_says_when_to_come_again(gated: Served) -> None:
    gated.service.models["gated"].pace = 7 / 0.00096  # a photo of 40x24 takes 7 s
    first = gated.post(png(noise())).json()
    until(gated, first["id"], "running")
    assert [gated.post(png(noise())).status_code for _ in range(3)] == [202, 202, 429]
    answer = gated.post(png(noise()))
    assert answer.json()["code"] == "full"
    assert 5 <= int(answer.headers["retry-after"]) <= 7
    assert "restora_queue_length 2" in gated.client.get("/metrics").text


def test_a_job_outlives_the_connection_that_asked_for_it(gated: Served) -> None:
    key = {"Idempotency-Key": "once"}
    files = {"photo": ("a.png", png(noise()))}
    with pytest.raises(httpx.ReadTimeout):
        gated.client.post("/v1/restorations?wait=30", files=files, headers=key, timeout=0.5)
    GatedDnCNN.gate.release()
    again = gated.client.post("/v1/restorations?wait=30", files=files, headers=key)
    assert again.status_code == 200
    assert gated.service.worker.finished_by_state["done"] == 1


def test_a_key_of_another_photo_is_refused(served: Served) -> None:
    def post(photo: bytes, **fields: str) -> httpx.Response:
        files = {"photo": ("a.png", photo)}
        headers = {"Idempotency-Key": "a key"}
        return served.client.post("/v1/restorations", files=files, data=fields, headers=headers)

    first, other = png(noise()), png(noise())
    assert other != first
    before = len(served.service.store.jobs)
    assert {post(first).status_code for _ in range(3)} == {202}
    while post(first).json()["state"] != "done":  # without `wait` it is the state, also of one that is done
        time.sleep(0.02)
    assert len(served.service.store.jobs) == before + 1
    for answer in (post(other), post(first, strength="0.5")):
        assert answer.status_code == 422
        assert answer.json()["code"] == "other-request"


def test_health_readiness_figures_and_documentation(served: Served) -> None:
    assert served.client.get("/healthz").json() == {"status": "alive"}
    assert served.client.get("/readyz").json() == {"status": "ready"}
    figures = served.client.get("/metrics").text
    assert 'restora_http_requests_total{method="GET",route="/healthz",status="200"}' in figures
    schema = served.client.get("/openapi.json").json()
    form = schema["paths"]["/v1/restorations"]["post"]["requestBody"]["content"]["multipart/form-data"][
        "schema"
    ]
    assert form["required"] == ["photo"]
    docs = served.client.get("/docs").text
    assert "http" not in docs.replace("http-equiv", "")  # nothing from elsewhere


def test_results_are_kept_for_a_while_only(served: Served) -> None:
    job_id = served.post(png(noise()), wait=30).headers["x-restoration-id"]
    job = served.service.store.get(job_id)
    files = [job.upload, job.result]
    served.service.store.expire(time.monotonic() + served.service.limits.keep_seconds - 5)
    assert not any(file is None or file.closed for file in files)
    served.service.store.expire(time.monotonic() + served.service.limits.keep_seconds + 5)
    assert all(file is not None and file.closed for file in files)
    answer = served.client.get(f"/v1/restorations/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown")


def test_a_tiny_photo_does_not_say_how_long_a_large_one_takes(served: Served) -> None:
    model = served.service.models["denoise"]
    model.pace = 2.0
    for _ in range(50):
        model.measured(1e-6, 0.01)
    assert model.pace < 2.5
    for _ in range(10):
        model.measured(12, 60)
    assert 4 < model.pace < 5


def test_one_photo_may_take_so_long_and_no_longer() -> None:
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    with running(gated_models(), Limits(seconds=0.3)) as held:
        GatedDnCNN.gate = threading.Semaphore(0)
        job = held.post(png(noise(480, 32))).json()
        until(held, job["id"], "running")
        time.sleep(0.4)
        GatedDnCNN.gate.release()
        failed = until(held, job["id"], "failed")
        assert failed["progress"]["tiles_done"] == 1
        answer = held.client.get(job["links"]["photo"])
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
        GatedDnCNN.gate.release(1 << 20)
        assert held.post(png(noise()), wait=30).status_code == 200
        held.service.models["gated"].pace = 1.0  # from now on it is known before it is begun
        foreseen = held.post(png(noise(1200, 1200)), wait=30)
        assert (foreseen.status_code, "would take about" in foreseen.json()["detail"]) == (413, True)


def test_other_sites_are_let_in_by_name_only() -> None:
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    friend = {"Origin": "https://friend.example"}
    with running(gated_models(), Limits(), origins=["https://friend.example"], token="t") as held:
        files = {"photo": ("a.png", png(noise()))}
        ask = {
            **friend,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        allowed = held.client.options("/v1/restorations", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://friend.example"
        sent = held.client.post(
            "/v1/restorations?wait=30", files=files, headers={**friend, "Authorization": "Bearer t"}
        )
        assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (200, friend["Origin"])
        refused = held.client.get("/v1/models", headers=friend)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == friend["Origin"]
        other = held.client.post("/v1/restorations", files=files, headers={"Origin": "https://other.example"})
        assert other.status_code == 403


def test_disks_do_not_fill_with_results(served: Served) -> None:
    store = served.service.store
    store.expire(time.monotonic() + 1e6)
    ids = [served.post(png(noise(100, 100)), wait=30).headers["x-restoration-id"] for _ in range(4)]
    limits, store.limits = store.limits, Limits(kept_megabytes=0.07)
    store.expire(time.monotonic())
    store.limits = limits
    assert [job_id in store.jobs for job_id in ids] == [False, False, True, True]


def test_small_photos_of_one_size_are_computed_together() -> None:
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    with running(gated_models(), Limits(queue=16), batch=4) as held:
        GatedDnCNN.gate = threading.Semaphore(0)
        blocking = held.post(png(noise(20, 20))).json()
        until(held, blocking["id"], "running")
        photos = [noise() for _ in range(3)] + [noise(channels=4), noise(24, 40)]
        jobs = [held.post(png(photo)).json() for photo in photos]
        damaged = held.post(png(noise(24, 40))[:-60]).json()
        cancelled = held.post(png(noise())).json()
        GatedDnCNN.gate.release(1)
        until(held, jobs[0]["id"], "running")
        states = [held.client.get(job["links"]["self"]).json()["state"] for job in [*jobs, cancelled]]
        assert states == ["running"] * 4 + ["waiting"] * 2
        held.client.delete(cancelled["links"]["self"])
        held.client.delete(jobs[1]["links"]["self"])
        GatedDnCNN.gate.release(1 << 20)
        for job, photo in zip(jobs, photos, strict=True):
            if job is not jobs[1]:
                until(held, job["id"], "done")
                np.testing.assert_array_equal(pixels(held.client.get(job["links"]["photo"]).content), photo)
        assert until(held, damaged["id"], "failed")["problem"]["code"] == "bad-photo"
        assert until(held, jobs[1]["id"], "cancelled")
        assert held.service.worker.finished_by_state == {"done": 5, "failed": 1, "cancelled": 2}
