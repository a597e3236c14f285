"""The ASGI application: the API, the page, health and metrics; every error is a problem (`answers.py`)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from restora import __version__
from restora.serving import metrics
from restora.serving.answers import PAGE, problem_response
from restora.serving.api import PROBLEM, router, token_note
from restora.serving.guard import Guard, Inner
from restora.serving.problems import CODES, SEE_DOCS, Problem
from restora.serving.query import query_check
from restora.serving.schemas import Health
from restora.serving.service import Service
from restora.serving.uploads import Body


def build_app(
    service: Service, *, token: str | None = None, local: bool = True, origins: Sequence[str] = ()
) -> FastAPI:
    """The application; `local`: for host names of this machine only; `origins`: other sites to allow."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        tidying = asyncio.create_task(service.tidy())
        yield
        tidying.cancel()

    app = FastAPI(
        title="restora serve",
        version=__version__,
        description="Restores photos. Errors are problem+json; `code` is one of: "
        + "; ".join(f"`{code}` {what}" for code, what in CODES.items()),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from a CDN: /docs is our own page
        redoc_url=None,
    )
    app.include_router(router(service, token=token))
    _add_health(app, service, token)
    _add_problems(app, service)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(Inner, token=token)
    if origins:
        allowed = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"]
        shown = ["Location", "Retry-After", "Content-Disposition"]
        shown += ["X-Restoration-Id", "X-Restoration-Frames"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=allowed,
            expose_headers=shown,
        )
    app.add_middleware(Guard, local=local, origins=origins, metrics=service.metrics)
    return app


def _add_problems(app: FastAPI, service: Service) -> None:
    @app.exception_handler(Problem)
    async def own(request: Request, problem: Problem) -> Response:
        return problem_response(problem, request.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        await Body(request, service.limits).drain()
        found = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
        return problem_response(Problem(422, "bad-option", found), request.headers)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        answer = problem_response(_of_address(request, error), request.headers)
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(_methods(request))
        return answer


def _of_address(request: Request, error: HTTPException) -> Problem:
    path = request.url.path
    if error.status_code == 404:
        return Problem(404, "no-route", f"there is nothing at {path}{SEE_DOCS}")
    if error.status_code == 405:
        detail = f"{path} supports {' and '.join(_methods(request))}, not {request.method}{SEE_DOCS}"
        return Problem(405, "bad-request", detail)
    return Problem(error.status_code, "bad-request", f"{error.detail}{SEE_DOCS}")


def _methods(request: Request) -> list[str]:
    """The methods that the address of a request supports."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    found: set[str] = set()
    for method in ("GET", "POST", "DELETE"):
        for route in request.app.routes:
            files_only = isinstance(route, Mount) and method != "GET"
            if not files_only and route.matches({**scope, "method": method})[0] == Match.FULL:
                found |= {"GET", "HEAD"} if method == "GET" else {method}
    return sorted(found)


def _add_health(app: FastAPI, service: Service, token: str | None) -> None:
    health = APIRouter(
        tags=["health"], responses={"4XX": PROBLEM}, dependencies=[Depends(query_check(service.limits))]
    )

    @health.get(
        "/healthz",
        summary="Whether the process is alive",
        responses={
            200: {"model": Health},
            503: {"description": "no photo is restored any more: restart the process", "model": Health},
        },
    )
    async def healthz() -> JSONResponse:
        alive = service.worker.is_alive()
        return JSONResponse({"status": "alive" if alive else "dead"}, 200 if alive else 503)

    @health.get(
        "/readyz",
        summary="Whether it accepts photos",
        responses={200: {"model": Health}, 503: {"description": "warming up or stopping", "model": Health}},
    )
    async def readyz() -> JSONResponse:
        state = "ready" if service.ready else "stopping" if service.stopping else "warming up"
        return JSONResponse({"status": state}, 200 if service.ready else 503)

    @health.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
        dependencies=token_note(token),
    )
    async def figures() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(_families(service)), media_type="text/plain; version=0.0.4")

    app.include_router(health)


def _families(service: Service) -> list[Any]:
    worker, queue = service.worker, service.queue
    answers: list[metrics.Sample] = [
        ({"method": method, "route": route, "status": str(status)}, count)
        for (method, route, status), count in sorted(service.metrics.answers.items())
    ]
    ended: list[metrics.Sample] = [({"state": state}, n) for state, n in worker.finished_by_state.items()]
    paces: list[metrics.Sample] = [
        ({"model": model.name}, model.pace) for model in service.models.values() if model.pace is not None
    ]
    kept = sum(job.result_bytes for job in list(service.store.jobs.values()))
    return [
        ("restora_http_requests_total", "counter", "Responses by method, route and status.", answers),
        ("restora_restorations_total", "counter", "Photos by final state.", ended),
        (
            "restora_megapixels_total",
            "counter",
            "Megapixels of the photos restored.",
            [({}, worker.megapixels)],
        ),
        (
            "restora_busy_seconds_total",
            "counter",
            "Seconds spent on restored photos.",
            [({}, worker.seconds)],
        ),
        ("restora_seconds_per_megapixel", "gauge", "Measured speed of each model.", paces),
        ("restora_queue_length", "gauge", "Photos that are waiting or being uploaded.", [({}, len(queue))]),
        ("restora_queue_size", "gauge", "Largest number of waiting photos.", [({}, queue.size)]),
        (
            "restora_running",
            "gauge",
            "Whether a photo is being restored.",
            [({}, int(queue.running is not None))],
        ),
        ("restora_ready", "gauge", "Whether photos are accepted.", [({}, int(service.ready))]),
        ("restora_kept_bytes", "gauge", "Results on disk.", [({}, kept)]),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", [({}, metrics.resident_bytes())]),
        ("process_start_time_seconds", "gauge", "Start time, Unix time.", [({}, service.metrics.started)]),
    ]
