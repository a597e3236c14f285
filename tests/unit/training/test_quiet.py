"""Warnings of other packages that have a line of ours, or say what is intended, are not shown."""

import logging
import warnings
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from restora.data.packing import cores
from restora.training.run import quieten


def test_torchs_warning_on_many_workers_is_left_to_the_line_that_names_the_setting() -> None:
    photos = [1, 2]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        DataLoader(photos, num_workers=cores() + 1)  # type: ignore[arg-type]
        assert [str(one.message) for one in shown if "worker processes" in str(one.message)]
        shown.clear()
        quieten(SimpleNamespace(threads=None))  # type: ignore[arg-type]
        DataLoader(photos, num_workers=cores() + 1)  # type: ignore[arg-type]
        assert not shown


def test_a_log_on_a_full_disk_prints_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, root = logging.getLogger("restora.full"), logging.getLogger()
    handler = logging.FileHandler("/dev/full")
    monkeypatch.setattr(root, "handlers", [handler])
    quieten(SimpleNamespace(threads=None))  # type: ignore[arg-type]
    log.warning("a line")
    assert capsys.readouterr().err == ""
    log.warning("%d", "not a number")  # a mistake of ours is still shown
    assert "not a number" in capsys.readouterr().err
    handler.stream = None  # type: ignore[assignment]
