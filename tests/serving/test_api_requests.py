"""Requests of the HTTP API that are refused, repeated or go to no route: each has its answer."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from serving_fixtures import Served
from test_api import noise, png, until

from restora.photos import extra_formats
from restora.serving.app import build_app
from restora.serving.limits import Limits
from restora.serving.models import load_models
from restora.serving.service import Service
from restora.serving.uploads import FIELDS

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(400)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        (
            "POST",
            "/v1/restorations?model=fill",
            "`model` has no effect in the query: send it as a form field",
        ),
        ("POST", "/v1/restorations?wiat=20", "no query parameter `wiat`: this request has `wait`"),
        ("POST", "/v1/restorations?wait=1&wait=2", "more than once"),
        ("POST", "/v1/preview?photo=x", "send it as a form field"),
        (
            "GET",
            "/v1/restorations/x/photo?fromat=png",
            "this request has `format`, `strength`, `quality`, `metadata`",
        ),
        ("GET", "/v1/restorations/x/events?wait=1", "this request has none"),
        ("DELETE", "/v1/restorations/x?wait=1", "this request has none"),
        ("GET", "/v1/models?name=fill", "this request has none"),
        ("GET", "/v1/models/fill/example?sides=after", "this request has `side`"),
        ("GET", "/readyz?verbose=1", "this request has none"),
        ("GET", "/metrics?name=x", "this request has none"),
    ],
)
def test_a_query_parameter_without_effect_is_refused(
    served: Served, method: str, path: str, words: str
) -> None:
    files = {"photo": ("a.png", png(noise()))} if method == "POST" else None
    jobs = len(served.service.store.jobs)
    answer = served.client.request(method, path, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-option")
    assert words in answer.json()["detail"]
    assert len(served.service.store.jobs) == jobs


def test_parallel_requests_with_one_key_are_one_restoration(served: Served) -> None:
    photo, other = png(noise(300, 200)), png(noise(300, 200))

    def post(data: bytes) -> httpx.Response:
        files = {"photo": ("a.png", data)}
        return httpx.post(
            f"{served.url}/v1/restorations?wait=30",
            files=files,
            headers={"Idempotency-Key": "at once"},
            timeout=60,
            trust_env=False,
        )

    before = len(served.service.store.jobs)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, [photo] * 7 + [other]))
    assert len(served.service.store.jobs) == before + 1
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.headers["x-restoration-id"] for answer in taken}) == 1
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) in (1, 7)  # whichever photo came first
    assert {answer.json()["code"] for answer in refused} == {"other-request"}
    assert len(served.service.queue) == 0


def test_a_mask_that_marks_nothing_is_refused(served: Served) -> None:
    def post(mask: np.ndarray) -> httpx.Response:
        files = {"photo": ("a.png", png(noise())), "mask": ("m.png", png(mask))}
        return served.client.post("/v1/restorations?wait=30", files=files, data={"model": "fill"})

    mask = np.full((24, 40), 127, np.uint8)
    answer = post(mask)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-option")
    assert "no pixel is white: paint what is to be filled in white" in answer.json()["detail"]
    mask[3, 4] = 128
    assert post(mask).status_code == 200
    assert "is white everywhere" in post(np.full((24, 40), 128, np.uint8)).json()["detail"]


def test_a_noise_level_that_is_no_number_names_auto_too(served: Served) -> None:
    answer = served.post(png(noise()), model="conditioned", sigma="AUTO")
    assert answer.json()["detail"] == "`sigma` must be a number from 0 to 255 or `auto`, got 'AUTO'"


def test_only_formats_that_can_be_read_are_named(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_formats, "readable", lambda: frozenset(("RAW",)))
    detail = served.post(b"hello, I am a photo").json()["detail"]
    assert "JPEG" in detail
    assert "RAW" in detail
    assert "HEIF" not in detail


def test_heic_without_its_package_says_what_to_do(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)  # importing it fails
    answer = served.post(HEIC)
    assert (answer.status_code, answer.json()["code"]) == (415, "not-a-photo")
    detail = answer.json()["detail"]
    assert "is HEIC, which this server cannot read: save it as JPEG and try again" in detail
    assert "restora[photos]" in detail


def test_an_unknown_address_has_its_own_code_and_says_where_the_routes_are(served: Served) -> None:
    answer = served.client.get("/v1/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-route")
    assert answer.json()["detail"] == "there is nothing at /v1/nothing: the routes are listed at /docs"
    assert served.client.get("/v1/restorations/nobody").json()["code"] == "unknown"
    assert "`no-route`" in served.client.get("/openapi.json").json()["info"]["description"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("image/avif,image/webp,*/*;q=0.8", "application/problem+json"),
    ],
)
def test_only_a_person_gets_a_page_of_an_error(served: Served, accept: str, kind: str) -> None:
    asked = {"Accept": accept}
    for path in ("/nothing", "/v1/restorations/nobody", "/v1/models?x=1"):
        answer = served.client.get(path, headers=asked)
        assert answer.headers["content-type"] == kind
        assert answer.headers["vary"] == "Accept"
        assert answer.is_error
    answer = served.client.get("/", headers=asked | {"Host": "evil.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, kind)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/restorations", {"POST"}),
        ("/v1/restorations/some", {"GET", "HEAD", "DELETE"}),
        ("/v1/models", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/", {"GET", "HEAD"}),
        ("/page/main.js", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_not_supported_names_those_that_are(
    served: Served, path: str, methods: set[str]
) -> None:
    answer = served.client.put(path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == methods
    assert all(method in answer.json()["detail"] for method in methods | {"PUT", "/docs"})


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/v1/models", "/page/main.js"])
def test_head_is_get_without_its_body(served: Served, path: str) -> None:
    answer, whole = served.client.head(path), served.client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert answer.headers["content-length"] == str(len(whole.content))


def test_the_preview_takes_a_photo_alone(served: Served) -> None:
    files = {"photo": ("a.png", png(noise()))}
    assert Image.open(io.BytesIO(served.client.post("/v1/preview", files=files).content)).format == "PNG"
    answer = served.client.post("/v1/preview", files=files, data={"model": "nix"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-option")
    assert answer.json()["detail"] == "there is no field 'model': fields are photo"


def test_the_description_lists_what_is_accepted(served: Served) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]

    def fields(path: str) -> set[str]:
        return set(
            paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        )

    assert fields("/v1/preview") == {"photo"}
    assert fields("/v1/restorations") == FIELDS
    assert "name" in FIELDS
    assert "503" in paths["/healthz"]["get"]["responses"]
    assert not [path for path, methods in paths.items() if "head" in methods]


_LOSSY = "only on JPEG, WEBP, AVIF: leave it out, or send format=jpeg"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": ["png", "jpeg"]}, "the form has 2 fields `format`: send one"),
        ({"quality": "80.5"}, "`quality` must be a whole number from 1 to 100, got 80.5"),
        ({"quality": "80", "format": "tiff"}, f"`quality` has no effect on a TIFF, {_LOSSY}"),
        ({"quality": "80"}, f"`quality` has no effect on a PNG, {_LOSSY}"),
    ],
)
def test_a_field_is_sent_once_and_as_it_is_described(served: Served, fields: dict, words: str) -> None:
    answer = served.client.post("/v1/restorations", files={"photo": ("a.png", png(noise()))}, data=fields)
    assert (answer.status_code, answer.json()["detail"]) == (422, words)


@pytest.mark.parametrize(
    ("name", "shown"), [("1. May 1950", "1. May 1950.png"), ("a.JPG", "a.png"), ("v1.2", "v1.2.png")]
)
def test_a_name_with_a_dot_is_not_cut(served: Served, name: str, shown: str) -> None:
    answer = served.client.post(
        "/v1/restorations?wait=30", files={"photo": ("x.png", png(noise()))}, data={"name": name}
    )
    assert f'filename="{shown}"' in answer.headers["content-disposition"]


def test_a_quality_is_refused_where_the_result_that_is_fetched_has_none(served: Served) -> None:
    job = served.client.post("/v1/restorations?wait=30", files={"photo": png(noise())}).headers
    link = f"/v1/restorations/{job['X-Restoration-Id']}/photo"
    for query, status in (
        ("quality=50", 422),
        ("format=preview&quality=50", 422),
        ("format=webp&quality=50", 200),
    ):
        assert served.client.get(f"{link}?{query}").status_code == status


def test_metadata_can_be_left_out_when_the_result_is_fetched(served: Served) -> None:
    text = PngInfo()
    text.add_text("Comment", "at the sea")
    job = served.client.post("/v1/restorations", files={"photo": png(noise(), pnginfo=text)}).json()
    assert until(served, job["id"], "done", "failed")["state"] == "done"
    photo = f"/v1/restorations/{job['id']}/photo"
    assert b"at the sea" in served.client.get(photo).content
    assert b"at the sea" not in served.client.get(f"{photo}?metadata=strip").content
    assert served.client.get(f"{photo}?metadata=none").status_code == 422


def _fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a value is what a schema of the document says, no more and no less."""
    if "$ref" in schema:
        return _fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return any(_fits(value, one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "object":
        known = schema["properties"]
        inside = isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(known)
        return inside and all(_fits(held, known[name], schemas) for name, held in value.items())
    if schema["type"] == "array":
        return isinstance(value, list) and all(_fits(held, schema["items"], schemas) for held in value)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[schema["type"]])


def test_responses_are_what_the_description_says(served: Served) -> None:
    described = served.client.get("/openapi.json").json()
    files = {"photo": ("a.png", png(noise()))}
    sent = served.client.post("/v1/restorations", files=files)
    job = sent.json()["links"]["self"]
    served.client.get(f"{job}/events")  # until it is done
    for path, method, answer in (
        ("/v1/models", "get", served.client.get("/v1/models")),
        ("/v1/restorations", "post", sent),
        ("/v1/restorations/{job_id}", "get", served.client.get(job)),
        ("/v1/restorations/{job_id}", "get", served.client.get("/v1/restorations/nobody")),
        ("/v1/restorations", "post", served.client.post("/v1/restorations")),
        ("/readyz", "get", served.client.get("/readyz")),
    ):
        responses = described["paths"][path][method]["responses"]
        response = responses.get(str(answer.status_code)) or responses["4XX"]
        schema = response["content"][answer.headers["content-type"]]["schema"]
        assert _fits(answer.json(), schema, described["components"]["schemas"]), (path, answer.json())
    events = described["paths"]["/v1/restorations/{job_id}/events"]["get"]["responses"]["200"]
    assert set(events["content"]) == {"text/event-stream"}


def test_the_description_states_the_token(model_folders: dict[str, Path]) -> None:
    models = load_models([str(model_folders["denoise"])], device="cpu", precision="float32", tile=256)
    paths = build_app(Service(models=models, limits=Limits()), token="t").openapi()["paths"]
    asking = {path for path, methods in paths.items() if all("security" in one for one in methods.values())}
    assert asking == {path for path in paths if path.startswith("/v1/")} | {"/metrics"}
