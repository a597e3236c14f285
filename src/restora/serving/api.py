"""The routes under /v1: photos in, photos out."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import IO, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from restora.files import json_text
from restora.serving.jobs import FINISHED, Job
from restora.serving.photo_bytes import MEDIA_TYPES, SUFFIXES, WRITABLE, check_quality, preview, read
from restora.serving.problems import MEDIA_TYPE, Problem
from restora.serving.query import query_check
from restora.serving.rendering import render
from restora.serving.schemas import JobState, ProblemBody, ServerState
from restora.serving.service import Service
from restora.serving.uploads import FORM_SCHEMA, PREVIEW_SCHEMA, Body, digest_of, job_of, photo_of

HEARTBEAT_SECONDS = 15
PROBLEM = {
    "description": "what is wrong and how to fix it",
    "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}},
}
PHOTO = {
    "description": "the photo",
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}


EVENTS = {
    "description": "an event for each change; its `data` is the state as JSON",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


FormatName = Annotated[
    str | None, Query(description=f"{', '.join(WRITABLE)}, or preview: a PNG for browsers")
]


def token_note(token: str | None) -> list[Any]:
    """The dependency that states the token in the OpenAPI document; `guard.py` checks it."""
    described = HTTPBearer(auto_error=False, description="the token that the server was started with")
    return [] if token is None else [Security(described)]


def router(service: Service, *, token: str | None = None) -> APIRouter:
    """The routes, bound to one service."""
    routes = APIRouter(
        prefix="/v1",
        responses={"4XX": PROBLEM, 500: PROBLEM},
        dependencies=[Depends(query_check(service.limits)), *token_note(token)],
    )
    receiving = asyncio.Semaphore(service.limits.queue)
    decoding, encoding = asyncio.Semaphore(2), asyncio.Semaphore(2)
    # these take several times a photo's memory; who waits for them holds no thread of the pool

    def shown(job: Job) -> JobState:
        position, ahead = service.queue.ahead(job)
        return job.as_json(position, ahead)

    def accepted(job: Job) -> JSONResponse:
        return JSONResponse(shown(job), 202, headers={"Location": f"/v1/restorations/{job.id}"})

    @routes.get(
        "/models",
        summary="The models of the server, and how fast they are",
        responses={200: {"model": ServerState}},
        response_model=None,
    )
    async def models() -> ServerState:
        limits = service.limits
        return {
            "ready": service.ready,
            "models": [model.as_json() for model in service.models.values()],
            "formats": sorted(WRITABLE),
            "queue": {"length": len(service.queue), "size": limits.queue},
            "limits": {
                "megabytes": limits.megabytes,
                "megapixels": limits.megapixels,
                "seconds": limits.seconds,
                "keep_seconds": limits.keep_seconds,
            },
        }

    @routes.get(
        "/models/{name:path}/example",
        summary="An example of the model: a degraded photo, or its restoration",
        responses={200: PHOTO},
        response_class=Response,
    )
    async def model_example(name: str, side: Literal["before", "after"] = "after") -> Response:
        model = service.models.get(name)
        if model is None or model.example is None:
            raise Problem(404, "unknown", f"there is no example of a model {name!r}")
        return Response(model.example[side == "after"], media_type="image/png")

    async def queued(body: Body, key: str | None) -> Job:
        """A new job; or that of another request with the key, which arrived while this one was received."""
        with service.reserve() as place:
            form = await body.form()
            try:
                digest = b"" if key is None else await run_in_threadpool(digest_of, form)
                job = await job_of(form, service.models, service.limits)
                job.digest = digest
            finally:
                await form.close()
            other = service.store.of_key(key)  # nothing is awaited from here to `add`
            if other is not None:
                job.close()
                _check_same(other, digest)
                return other
            place.fill(job)
            service.store.add(job, key)
            return job

    @routes.post(
        "/restorations",
        summary="Restore a photo",
        status_code=202,
        openapi_extra=_form(FORM_SCHEMA),
        responses={
            200: PHOTO,
            202: {
                "description": "accepted; `links` has the URLs of its state and result",
                "model": JobState,
            },
            429: PROBLEM,
            503: PROBLEM,
        },
        response_class=Response,
    )
    async def create(
        request: Request,
        wait: Annotated[
            float, Query(ge=0, le=3600, description="seconds to wait for the restored photo")
        ] = 0,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> Response:
        """Without `wait`, the response is 202 with an id, at once.

        With `wait`, the response is the restored photo, or 202 if it is not done in time. Requests with the
        same Idempotency-Key get the same restoration; another photo under the same key is refused.
        """
        async with Body(request, service.limits) as body:
            job = service.store.of_key(idempotency_key)
            if job is not None:
                form = await body.form()
                try:
                    _check_same(job, await run_in_threadpool(digest_of, form))
                finally:
                    await form.close()
            else:
                job = await queued(body, idempotency_key)
        if wait == 0 or not await service.store.finished(job, wait):
            return accepted(job)
        return await photo_response(job)

    @routes.get(
        "/restorations/{job_id}",
        summary="State and progress of a restoration",
        responses={200: {"model": JobState}},
        response_model=None,
    )
    async def status(job_id: str) -> JobState:
        return shown(service.store.get(job_id))

    @routes.get(
        "/restorations/{job_id}/photo",
        summary="The restored photo",
        responses={200: PHOTO, 503: PROBLEM},
        response_class=Response,
    )
    async def photo(
        job_id: str,
        format: FormatName = None,
        strength: Annotated[float | None, Query(ge=0, le=1)] = None,
        quality: Annotated[int | None, Query(ge=1, le=100)] = None,
        metadata: Annotated[Literal["keep", "strip"] | None, Query()] = None,
    ) -> Response:
        """As the form said, or as `format`, `strength`, `quality` and `metadata` say now."""
        keep = None if metadata is None else metadata == "keep"
        return await photo_response(service.store.get(job_id), format, strength, quality, keep)

    @routes.get(
        "/restorations/{job_id}/events",
        summary="Progress of a restoration as server-sent events, until it is finished",
        responses={200: EVENTS},
        response_class=Response,
    )
    async def events(job_id: str, last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
        """The data are those of GET /v1/restorations/ID; Last-Event-ID continues an interrupted stream."""
        job = service.store.get(job_id)
        known = re.fullmatch(r"[0-9]{1,18}", last_event_id or "")
        seen = int(known[0]) if known else -1
        return StreamingResponse(_events(service, job, seen, shown), media_type="text/event-stream")

    @routes.delete(
        "/restorations/{job_id}", summary="Cancel a restoration, or delete its result", status_code=204
    )
    async def cancel(job_id: str) -> Response:
        service.cancel(service.store.get(job_id))
        return Response(status_code=204)

    @routes.post(
        "/preview",
        summary="A photo as a PNG that any browser can show",
        openapi_extra=_form(PREVIEW_SCHEMA),
        responses={200: PHOTO},
        response_class=Response,
    )
    async def make_preview(request: Request) -> Response:
        """Upright, with 8 bits per channel, for formats that browsers cannot show. Nothing is stored."""
        async with Body(request, service.limits) as body, receiving:
            form = await body.form()
        try:
            file = await run_in_threadpool(photo_of, form, service.limits)
            async with decoding:
                made = await run_in_threadpool(lambda: preview(read(file)))
            return Response(made, media_type="image/png")
        finally:
            await form.close()

    async def photo_response(
        job: Job,
        format_name: str | None = None,
        strength: float | None = None,
        quality: int | None = None,
        keep_metadata: bool | None = None,
    ) -> Response:
        _check_done(job)
        if format_name is not None and format_name != "preview" and format_name not in WRITABLE:
            known = ", ".join(sorted(WRITABLE))
            raise Problem(
                422, "bad-option", f"`format` must be one of {known} or preview, got {format_name!r}"
            )
        wanted = None if format_name is None else WRITABLE.get(format_name, "preview")
        check_quality(quality, "PNG" if wanted == "preview" else wanted or job.result_format)
        async with encoding:
            file, written = await run_in_threadpool(
                render,
                job,
                format_name=wanted,
                strength=strength,
                quality=quality,
                keep_metadata=keep_metadata,
            )
        job.fetched = True
        return _file_response(file, written, job)

    return routes


def _check_same(job: Job, digest: bytes) -> None:
    """Raises Problem if a request with the key of `job` sent something else."""
    if digest != job.digest:
        detail = "an earlier request with this Idempotency-Key sent another photo or other options"
        raise Problem(422, "other-request", f"{detail}: use another key")


def _check_done(job: Job) -> None:
    """Raises Problem if no result is available."""
    if job.problem is not None:
        raise replace(job.problem)  # the job's own would gather the traceback of every request
    if job.state == "cancelled":
        raise Problem(410, "gone", "the restoration was cancelled")
    if job.state not in FINISHED:
        raise Problem(409, "not-done", f"the restoration is {job.state}: try again in a while", 1)


def _file_response(file: IO[bytes], written: str, job: Job) -> StreamingResponse:
    size = file.seek(0, 2)
    file.seek(0)
    name = f"{job.stem}{SUFFIXES[written]}"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}",
        "X-Restoration-Id": job.id,
    }
    if job.header.frames > 1:
        headers["X-Restoration-Frames"] = f"1 of {job.header.frames}"
    return StreamingResponse(_pieces(file), media_type=MEDIA_TYPES[written], headers=headers)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 18):
            yield piece


async def _events(service: Service, job: Job, seen: int, shown: Any) -> AsyncIterator[str]:
    """Server-sent events: the present state if it is newer than `seen`, then each change."""
    at_once = job.state in FINISHED
    while True:
        if job.version > seen or at_once:
            seen, finished = job.version, job.state in FINISHED  # both may change while the event is sent
            name = job.state if finished else "progress"
            yield f"id: {seen}\nevent: {name}\ndata: {json_text(shown(job), indent=None)}\n\n"
            if finished:
                return
        if not await service.store.news(job, seen, HEARTBEAT_SECONDS):
            yield ": still here\n\n"
