"""A server of the test's own on a free port, its models tiny, and one that waits for the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import uvicorn
from served_models import conditioned, filler, identity, upscaler, zeroed
from torch import Tensor

from restora.artifact.model_folder import ModelDescription
from restora.artifact.restorer import Restorer
from restora.networks.dncnn import DnCNN
from restora.serving.app import build_app
from restora.serving.limits import Limits
from restora.serving.models import ServedModel, load_models
from restora.serving.server import listen
from restora.serving.service import Service


class GatedDnCNN(DnCNN):
    """Restores a tile each time that the test opens the gate; starts open, so that it can warm up."""

    gate: ClassVar[threading.Semaphore] = threading.Semaphore(1 << 20)

    def fold_batch_norm(self) -> "GatedDnCNN":
        return self

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert GatedDnCNN.gate.acquire(timeout=30)
        return super().restore(x, condition)


@dataclass
class Served:
    """A running server and a client for it."""

    url: str
    service: Service
    client: httpx.Client

    def post(self, photo: bytes, wait: float = 0, **fields: str) -> httpx.Response:
        files = {"photo": ("photo.png", photo)}
        return self.client.post(f"/v1/restorations?wait={wait}", files=files, data=fields)


@contextmanager
def running(
    models: dict[str, ServedModel], limits: Limits, *, batch: int = 1, **options: object
) -> Iterator[Served]:
    service = Service(models=models, limits=limits, batch=batch)
    bound = listen("127.0.0.1", 0)
    app = build_app(service, **options)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        assert service.worker.ready.wait(60)
        yield Served(url, service, client)
    service.queue.close()
    for job in service.store.unfinished():
        service.cancel(job)
    server.should_exit = True
    thread.join(20)


def gated_models() -> dict[str, ServedModel]:
    """One model of tiles of 48 pixels, each of which waits for the gate."""
    network = zeroed(GatedDnCNN(in_channels=3, depth=3, channels=2, batch_norm=False))
    description = ModelDescription(
        name="gated",
        task="denoise",
        family="residual_cnn",
        network={},
        scale=1,
        in_channels=3,
        out_channels=3,
        condition_channels=0,
        size_multiple=1,
    )
    restorer = Restorer(network=network, device="cpu", tile=48, overlap=0, description=description)
    return {"gated": ServedModel(name="gated", restorer=restorer, description=description)}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    makers = {"denoise": identity, "upscale": upscaler, "fill": filler, "conditioned": conditioned}
    return {name: make(root / name) for name, make in makers.items()}


@pytest.fixture(scope="module")
def served(model_folders: dict[str, Path]) -> Iterator[Served]:
    """All small models, generous limits but those that the tests reach."""
    sources = [str(folder) for folder in model_folders.values()]
    models = load_models(sources, device="cpu", precision="float32", tile=256)
    limits = Limits(megabytes=8, megapixels=5, upload_seconds=3)
    with running(models, limits) as held:
        yield held


@pytest.fixture
def gated() -> Iterator[Served]:
    """A server whose one model waits for the test; its queue holds two photos."""
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    with running(gated_models(), Limits(queue=2)) as held:
        GatedDnCNN.gate = threading.Semaphore(0)
        yield held
        GatedDnCNN.gate.release(1 << 20)
