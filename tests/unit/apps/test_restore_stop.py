"""`restora restore` that is stopped: what is kept, and what it says."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from restora.apps.restoring import running, stopping
from restora.apps.restoring.plan import Job
from restora.apps.restoring.running import _Work, run
from restora.apps.restoring.settings import Settings
from restora.fitting.base import Fit, Problem, Step
from restora.fitting.photos import PhotoFit
from restora.photos.files import Photo


class Slow(Fit):
    """Grey pictures, lighter with every step; `stop` is called in the third."""

    name: ClassVar[str] = "slow"
    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(self, stop: Any) -> None:
        self.stop, self.asked = stop, 0

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        for number in range(1, 11):
            self.asked += 1
            if number == 3:
                self.stop()
            yield Step(number, 10, torch.full_like(problem.degraded, number / 10), 1.0)


def job(folder: Path, name: str = "a.png") -> Job:
    return Job(folder / name, folder / "out" / name, name, megapixels=1.0, size=(8, 8))


def stopped_fit(folder: Path) -> int:
    """Fits a photo until a stop in the third step; the number of steps."""
    (folder / "out").mkdir()
    fit = Slow(lambda: work.stopped.set())
    work = _Work([job(folder)], [PhotoFit(fit=fit)], Settings())
    photo: Future[Photo] = Future()
    photo.set_result(Photo(np.zeros((8, 8, 3), np.uint8), None))
    assert work.restore([job(folder)], [photo]) == []
    assert not work.failures
    return fit.asked


def test_a_long_fit_that_is_stopped_keeps_its_result_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "WORTH_KEEPING", 0.0)
    assert stopped_fit(tmp_path) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.so_far.png"]
    assert np.asarray(Image.open(tmp_path / "out" / "a.so_far.png")).max() == round(0.3 * 255)
    said = "".join(capsys.readouterr().err.split())
    assert "a.png:stoppedafter3of10steps" in said
    assert "theresultsofarisin" in said


def test_a_short_fit_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    assert stopped_fit(tmp_path) == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_signal_is_answered_at_once_and_the_photos_done_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: _Work, group: list[Job]) -> None:
        if group[0].name == "3.png":
            raise KeyboardInterrupt

    jobs = [job(tmp_path, f"{number}.png") for number in range(6)]
    for made in jobs:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(made.source)
    monkeypatch.setattr(_Work, "advance", interrupted)
    with stopping.terminable(), pytest.raises(stopping.Ended) as ended:
        run(jobs, [PhotoFit(fit=Slow(lambda: None))], Settings())
    written = len(list((tmp_path / "out").iterdir()))
    assert 3 <= written == ended.value.restored <= 4
    assert ended.value.message(jobs).startswith(f"stopped: {written} of 6 photos restored")
    assert isinstance(ended.value.__cause__, KeyboardInterrupt)
    assert stopping.STOPPING in capsys.readouterr().err
