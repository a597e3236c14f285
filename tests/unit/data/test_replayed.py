"""A batch that is replayed is the batch that it would have been, in memory of its own."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from data_toys import fitted, photo_data
from played_graph import Played
from torch import Tensor

from restora.config import build, parts
from restora.data import module, replayed
from restora.data.degrading import made
from restora.data.replayed import Replayed, wanted
from restora.data.sources import Folder
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.keyed import sample_key


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def batch(number: int, count: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    photos = torch.randint(0, 256, (count, 3, side, side), generator=generator).to(torch.uint8)
    return photos, torch.tensor([sample_key(number, index) for index in range(count)])


def same(one: tuple[Tensor | None, ...], other: tuple[Tensor | None, ...]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if a is not None and b is not None else a is b for a, b in pairs)


@pytest.mark.parametrize("noisy", [False, True], ids=["clean target", "noisy target"])
def test_none_is_written_by_those_that_come_after_it(noisy: bool, cuda: Played) -> None:
    make = partial(made, build(dict(parts("degradation")["jpeg"]), "degradation"), noisy)
    replays = Replayed(make)
    kept = [replays(*batch(number)) for number in range(5)]
    assert cuda.recorded == 1
    assert all(same(got, make(*batch(number))) for number, got in enumerate(kept))


def test_each_size_has_its_own_up_to_a_limit(cuda: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "_MOST_SIZES", 2)
    make = partial(made, GaussianNoise(sigma=(0, 50)), False)
    replays = Replayed(make)
    for number in range(3):
        for count, side in ((2, 16), (3, 16), (2, 8)):
            given = batch(number, count, side)
            assert same(replays(*given), make(*given))
    assert cuda.recorded == 2


def test_what_cannot_be_replayed_is_made_as_ever_and_said_once(
    cuda: Played, caplog: pytest.LogCaptureFixture
) -> None:
    drawn: list[int] = []

    def waits(photos: Tensor, keys: Tensor) -> Any:
        if cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return (photos / 255,)

    def changes(photos: Tensor, keys: Tensor) -> Any:
        drawn.append(0)
        return (photos / 255 + len(drawn),)

    cases = ((waits, "called a synchronizing CUDA operation"), (changes, "a replay gives other photos"))
    for make, said in cases:
        caplog.clear()
        replays = Replayed(make)
        answers = [replays(*batch(number))[0] for number in range(4)]
        assert cuda.mode == "default"
        if make is waits:
            assert cuda.recorded == 0
            assert all(torch.equal(x, batch(n)[0] / 255) for n, x in enumerate(answers))
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert said in warnings[0]
    assert len(drawn) == 6  # four batches; of the second once more with a tape, and once more after it


def test_a_training_sees_the_same_batches(
    folder: Path, tmp_path: Path, cuda: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation photos have sizes of their own and are not replayed."""
    options = {"val_check_interval": 2, "max_steps": 6, "limit_val_batches": 3}
    plain = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"), **options)
    monkeypatch.setattr(module, "wanted", lambda device: True)
    data = photo_data(Folder(root=folder), tmp_path / "packed")
    again = fitted(tmp_path, data, **options)
    assert cuda.recorded == 1
    assert len(data._replayed._recordings) == 1
    assert again.seen == plain.seen
    assert again.scored == plain.scored


def test_it_is_off_unless_turned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    assert not wanted(card)
    monkeypatch.setenv(replayed.SWITCH, "1")
    assert wanted(card)
    assert not wanted(torch.device("cpu"))
