"""What people and machines send that is no photo, or too much of one: a clear 4xx for each, and the server
goes on."""

import io
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import Served

from restora.apps.restore import main as restore
from restora.serving.limits import Limits
from restora.serving.uploads import Body

RNG = np.random.default_rng(1)


def image(mode: str, size: tuple[int, int], name: str, **options: object) -> bytes:
    out = io.BytesIO()
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    values = RNG.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(values, mode).save(out, name, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, body: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def animated(name: str) -> bytes:
    frames = [Image.fromarray(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for _ in range(3)]
    out = io.BytesIO()
    frames[0].save(out, name, save_all=True, append_images=frames[1:])
    return out.getvalue()


def float_tiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(out, "TIFF")
    return out.getvalue()


JPEG = image("RGB", (200, 100), "JPEG")
PNG = image("RGB", (60, 40), "PNG")
BAD = {
    "empty": (b"", 422),
    "text": (b"hello, I am a photo", 415),
    "pdf": (b"%PDF-1.7\n" + bytes(200), 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "zeros": (bytes(5000), 415),
    "noise": (RNG.bytes(5000), 415),
    "jpeg, half": (JPEG[: len(JPEG) // 2], 422),
    "jpeg, first bytes": (JPEG[:20], 422),
    "jpeg, zeros inside": (JPEG[:300] + bytes(50) + b"\xff\xd9", 422),
    "png, half": (PNG[: len(PNG) // 2], 422),
    "png, header only": (PNG[:33], 422),
    "png, wrong checksum": (PNG[:40] + b"\x00\x01\x02" + PNG[43:], 422),
    "png of no width": (png_of(0, 5), 422),
    "png of no pixels": (png_of(50, 50), 422),
    "png that says 30,000 x 30,000": (png_of(30_000, 30_000), 413),
    # made when they are sent: it takes seconds
    "png bomb": (lambda: png_of(20_000, 20_000, bytes(20_001 * 20_000)), 413),
    "png with a text bomb": (
        lambda: png_of(9, 9, bytes(90), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
        422,
    ),
    "tiff, half": (image("RGB", (64, 64), "TIFF")[:4000], 422),
    "tiff of NaN": (float_tiff(), 422),
    "webp, half": (image("RGB", (64, 64), "WEBP")[:900], 422),
    "bmp, half": (image("RGB", (64, 64), "BMP")[:500], 422),
    "too many bytes": (PNG + bytes(9_000_000), 413),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_photo_gets_a_clear_answer(served: Served, name: str) -> None:
    made, status = BAD[name]
    answer = served.post(made() if callable(made) else made, wait=30)
    problem = answer.json()
    assert answer.status_code == status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    fixes = ("save it as", "copy it again", "send a smaller", "convert it")
    assert any(fix in problem["detail"] for fix in fixes), problem["detail"]
    assert served.client.get("/readyz").status_code == 200
    assert len(served.service.queue) == 0


GOOD = {
    "1x1": image("RGB", (1, 1), "PNG"),
    "30,000 x 1": image("RGB", (30_000, 1), "PNG"),
    "1 x 30,000": image("L", (1, 30_000), "PNG"),
    "cmyk": image("CMYK", (40, 30), "JPEG"),
    "a jpeg with a wrong ending": image("RGB", (40, 30), "JPEG"),
}


@pytest.mark.parametrize("name", ["png", "webp", "gif", "tiff"])
def test_of_several_frames_the_first_is_restored_as_by_the_command(
    served: Served,
    model_folders: dict[str, Path],
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Byte for byte, and both say that there are more."""
    (tmp_path / f"a.{name}").write_bytes(animated(name.upper()))
    ending = "png" if name == "gif" else name
    words = [str(model_folders["denoise"]), str(tmp_path / f"a.{name}"), str(tmp_path / f"out.{ending}")]
    assert restore([*words, "--device", "cpu", "--tile", "256"]) == 1
    assert "has 3 frames or pages: the first was restored" in capsys.readouterr().err
    answer = served.post((tmp_path / f"a.{name}").read_bytes(), wait=30)
    assert answer.status_code == 200, answer.content
    assert answer.content == (tmp_path / f"out.{ending}").read_bytes()
    assert answer.headers["x-restoration-frames"] == "1 of 3"
    job = served.client.get(f"/v1/restorations/{answer.headers['x-restoration-id']}").json()
    assert job["photo"]["frames"] == 3


@pytest.mark.parametrize("name", GOOD)
def test_what_is_an_odd_photo_is_restored(served: Served, name: str) -> None:
    answer = served.post(GOOD[name], wait=30)
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).size == Image.open(io.BytesIO(GOOD[name])).size


def test_a_result_of_too_many_megapixels_is_refused_before_anything_is_computed(served: Served) -> None:
    photo = image("L", (1500, 1500), "PNG")
    answer = served.post(photo, wait=30, model="upscale")
    assert answer.status_code == 413
    assert "when 2 times enlarged" in answer.json()["detail"]
    assert served.post(image("L", (1500, 1500), "JPEG"), wait=60).status_code == 200


def test_ten_thousand_files_in_one_form_are_refused(served: Served) -> None:
    files = [("photo", (f"{index}.png", b"x")) for index in range(10_000)]
    answer = served.client.post("/v1/restorations", files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-upload")


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="photo"'


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({}, b"abc", 415),
        ({"Content-Type": "multipart/form-data"}, b"abc", 400),
        (FORM, b"no boundary at all", 400),
        (FORM, b"--x--\r\n", 422),
        (FORM, PART + b'; filename="a"\r\n\r\nabc', 422),
        (FORM, PART + b"\r\n\r\nabc\r\n--x--\r\n", 422),
    ],
)
def test_a_broken_form_gets_a_clear_answer(
    served: Served, headers: dict, content: bytes, status: int
) -> None:
    answer = served.client.post("/v1/restorations", headers=headers, content=content)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "C:\\photos\\a.png", 'a";b\r\nX: y.png', "写真.png", "." * 300]
)
def test_the_name_of_a_photo_is_used_for_the_download_only(served: Served, name: str) -> None:
    answer = served.client.post(
        "/v1/restorations?wait=30", files={"photo": ("a.png", PNG)}, data={"name": name}
    )
    assert answer.status_code == 200
    shown = answer.headers["content-disposition"]
    plain = shown.split('filename="')[1].split('"')[0]
    assert plain.endswith(".png")
    assert not set(plain) & set('/\\\r\n":')
    assert "x" not in answer.headers


def connect(served: Served, path: str = "/v1/restorations") -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100000\r\n"
    made.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
    return made


def test_a_slow_upload_is_given_up(served: Served) -> None:
    with connect(served) as slow:
        started = time.monotonic()
        assert b"408" in slow.recv(4096).splitlines()[0]
        assert 2 < time.monotonic() - started < 15
    assert len(served.service.queue) == 0


def test_an_upload_that_falls_behind_is_given_up_early(gated: Served) -> None:
    limits, gated.service.limits = gated.service.limits, Limits(stall_seconds=0.2)
    try:
        with connect(gated) as slow:
            started = time.monotonic()
            assert b"408" in slow.recv(4096).splitlines()[0]
            assert time.monotonic() - started < 15 < limits.upload_seconds
    finally:
        gated.service.limits = limits
    assert Limits().upload_deadline(12_000_000) > 12_000_000 / 31_000, "a photo on a line of 0.25 Mbit/s"


def test_slow_uploads_for_previews_hold_up_nobody(served: Served) -> None:
    slow = [connect(served, "/v1/preview") for _ in range(6)]
    started = time.monotonic()
    assert served.client.post("/v1/preview", files={"photo": ("a.png", PNG)}).status_code == 200
    assert time.monotonic() - started < served.service.limits.upload_seconds / 2
    for one in slow:
        one.close()


def test_the_rest_of_a_refused_body_is_received_without_a_place(
    gated: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    async def drain(_: Body) -> None:
        held.append(len(gated.service.queue))

    monkeypatch.setattr(Body, "drain", drain)
    assert gated.client.post("/v1/restorations", content=b"no form").status_code == 415
    assert held == [0]


def test_half_an_upload_leaves_nothing_behind(served: Served) -> None:
    for _ in range(20):
        connect(served).close()
    # a place is free again as soon as the server has seen the connection end, which a busy machine delays
    answer = served.post(PNG, wait=30)
    for _ in range(200):
        if answer.status_code != 429:
            break
        time.sleep(0.05)
        answer = served.post(PNG, wait=30)
    assert answer.status_code == 200
    assert len(served.service.queue) == 0


def test_a_client_that_asks_before_it_sends_is_not_made_to_send(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as made:
        head = f"POST /v1/restorations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 99000000\r\n"
        rest = "Expect: 100-continue\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
        made.sendall((head + rest).encode())
        assert b" 413 " in made.recv(4096).splitlines()[0]


def test_unknown_addresses_and_methods_are_problems_too(served: Served) -> None:
    for answer, status in (
        (served.client.get("/v1/nothing"), 404),
        (served.client.get("/v1/restorations/nobody/photo"), 404),
        (served.client.put("/v1/restorations"), 405),
        (served.client.get("/v1/restorations/x/photo?strength=x"), 422),
        (served.client.get("/page/../../../pyproject.toml"), 404),
        (served.client.get("/page/%2e%2e/app.py"), 404),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


def test_pages_of_others_are_refused(served: Served) -> None:
    files = {"photo": ("a.png", PNG)}
    foreign = served.client.post("/v1/restorations", files=files, headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign-page")
    rebound = served.client.get("/v1/models", headers={"Host": "evil.example"})
    assert rebound.status_code == 403
    own = served.client.post("/v1/restorations", files=files, headers={"Origin": served.url})
    assert own.status_code == 202


@pytest.mark.parametrize("name", ["Host", "Origin"])
@pytest.mark.parametrize("value", ["[::1", "http://[", "]"])
def test_an_address_that_is_none_is_that_of_no_friend(served: Served, name: str, value: str) -> None:
    answer = served.client.get("/v1/models", headers={name: value})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign-page")


@pytest.mark.parametrize("number", ["²".encode("latin-1"), b"9" * 5000, b"-1", b"word"])
def test_an_event_number_that_is_none_begins_anew(served: Served, number: bytes) -> None:
    job = served.post(image("RGB", (20, 20), "PNG"), wait=30).headers["X-Restoration-Id"]
    answer = served.client.get(f"/v1/restorations/{job}/events", headers={"Last-Event-ID": number})
    assert answer.status_code == 200
    assert "event: done" in answer.text


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "half"}])
def test_a_name_that_is_no_text_is_answered(served: Served, key: dict[str, str]) -> None:
    """Half a character, which the encoding that the form declares can spell."""
    head = b"--x\r\nContent-Disposition: form-data; name="
    name, file = b"name\r\n\r\n\\ud800\r\n", b"photo; filename=a\r\n\r\n" + image("RGB", (20, 20), "PNG")
    body = head + name + head + file + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"} | key
    answer = served.client.post("/v1/restorations?wait=30", content=body, headers=headers)
    assert answer.status_code == 200
    assert served.client.get(f"/v1/restorations/{answer.headers['X-Restoration-Id']}").status_code == 200


def test_clients_cannot_make_the_server_grow(served: Served) -> None:
    """Neither by methods of their own, nor by photos that fail: a decoder's frames hold the file."""
    for number in range(5):
        served.client.request(f"BREW{number}", "/v1/models")
    counted = {method for method, _, _ in served.service.metrics.answers}
    assert "other" in counted
    assert not any(method.startswith("BREW") for method in counted)
    damaged = image("RGB", (20, 20), "PNG")[:-40]
    job = served.service.store.jobs[served.post(damaged).json()["id"]]
    while job.problem is None:
        time.sleep(0.01)
    for _ in range(2):
        assert served.client.get(f"/v1/restorations/{job.id}/photo").status_code == 422
        assert (job.problem.__traceback__, job.problem.__cause__) == (None, None)
