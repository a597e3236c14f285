"""A batch that is begun before it is wanted is the batch that it would have been, and waits in the right
order."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from data_toys import fitted, photo_data

from restora.data.ahead import Ahead, OneAhead
from restora.data.module import PhotoData
from restora.data.sources import Folder
from restora.degradations.compose.composition import OnDemand
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.types import Batch


def test_a_training_sees_the_same_batches(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over epochs, validations and a batch of each that is begun for nothing; without streams, on a CPU."""
    options = {"val_check_interval": 2, "max_steps": 12}
    plain = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"), **options)
    begun: list[Ahead] = []

    class Noted(Ahead):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            begun.append(self)

    monkeypatch.setattr("restora.data.ahead.Ahead", Noted)
    monkeypatch.setattr(PhotoData, "_ahead", property(lambda self: self._begun_on(torch.device("cpu"))))
    ahead = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"), **options)
    assert len(begun) == 13
    assert ahead.seen == plain.seen
    assert torch.equal(ahead.layer.weight, plain.layer.weight)
    assert ahead.scored == plain.scored


class Streams:
    """CUDA's streams, as far as they are used here: which of them what is done is queued on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued: list[str] = []
        self.present = self.named("step")
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: self.named("side"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: self.present)
        monkeypatch.setattr(torch.cuda, "stream", self.on)

    def named(self, name: str) -> Any:
        streams = self

        class Stream:
            def wait_stream(self, other: Any) -> None:
                streams.queued.append(f"{name} waits for all of {other}")

            def record_event(self) -> str:
                return streams.queued[-1]

            def wait_event(self, event: str) -> None:
                streams.queued.append(f"{name} waits for: {event}")

            def __str__(self) -> str:
                return name

        return Stream()

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.present = self.present, stream
        yield
        self.present = before


def test_a_batch_is_made_beside_the_step_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)

    def prepare(number: int) -> Batch:
        streams.queued.append(f"{streams.present} makes {number}")
        return Batch(None, torch.full((1,), float(number)), None, [str(number)])

    for begun in OneAhead(prepare, torch.device("cuda", 0))(iter(range(3))):
        streams.queued.append(f"{streams.present} uses {begun.ready().names[0]}")
    assert streams.queued == [
        *("side waits for all of step", "side makes 0", "side waits for all of step", "side makes 1"),
        *("step waits for: side makes 0", "step uses 0", "side waits for all of step", "side makes 2"),
        *("step waits for: side makes 1", "step uses 1", "step waits for: side makes 2", "step uses 2"),
    ]


def test_the_memory_of_a_batch_is_kept_until_its_step_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, recorded = Streams(monkeypatch), []

    class OnCard(torch.Tensor):
        is_cuda = True

        def record_stream(self, stream: Any) -> None:
            recorded.append(str(stream))

    def prepare(_: int) -> Batch:
        clean, degraded, keys = (torch.zeros(1).as_subclass(OnCard) for _ in range(3))
        return Batch(clean, degraded, None, ["a"], keys=keys)

    for begun in OneAhead(prepare, torch.device("cuda", 0))(iter(range(1))):
        begun.ready()
    assert recorded == ["step"] * 3
    assert streams.queued


def test_what_follows_validation_is_not_begun_before_it(folder: Path, tmp_path: Path) -> None:
    class OnCuda:
        strategy = type("Strategy", (), {"root_device": torch.device("cuda", 0)})

    data = photo_data(Folder(root=folder), tmp_path)
    assert data._ahead is None
    data.trainer = OnCuda()
    assert data._ahead is not None
    data.overlap = False
    assert data._ahead is None
    noise = OnDemand(stages={"low": GaussianNoise(sigma=(0, 10)), "high": GaussianNoise(sigma=(40, 50))})
    data = photo_data(Folder(root=folder), tmp_path, degradation=noise)
    data.trainer = OnCuda()
    assert data._ahead is None
