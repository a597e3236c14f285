"""Names that W&B accepts."""

from pathlib import Path
from typing import Any

import pytest

from restora.training import tracking
from restora.training.record import RunInfo


def test_a_name_that_wandb_would_refuse_is_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of a sweep is its folder, whose path may be long."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(tracking, "_begin", lambda mode, monitor, **arguments: given.append(arguments))
    for place in ("a" * 100, "b" * 100, ""):
        config = {"name": "x" * 200, "task": "denoise"}
        sweep = {"id": f"/{place}/{'c' * 100}/sweep" if place else "/sweep"}
        log = tracking.wandb_log(RunInfo(tmp_path, config, network_name="n" * 70, sweep=sweep))
        assert log is not None
        log.begin()
    assert {len(arguments["name"]) for arguments in given} == {128}
    assert [len(tag) for tag in given[0]["tags"]] == [7, 64]
    groups = [arguments["group"] for arguments in given]
    assert [len(group) for group in groups[:2]] == [128, 128]
    assert groups[0] != groups[1]
    assert groups[0].endswith("c/sweep")
    assert groups[2] == "/sweep"
