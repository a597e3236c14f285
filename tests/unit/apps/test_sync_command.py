"""`restora sync`: counts runs, of which W&B keeps each part in a folder of its own."""

from pathlib import Path

import pytest

from restora.apps import sync


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two offline runs: the first was resumed, and has two parts."""
    for run, part in {
        "a": "20260101_100000-ra",
        "a/.": "20260101_110000-ra",
        "b": "20260101_120000-r-b",
    }.items():
        folder = tmp_path / run / "wandb" / f"offline-run-{part}"
        folder.mkdir(parents=True)
        (folder / "run.wandb").touch()
    return tmp_path


def test_runs_are_counted_if_none_can_be_sent(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "wandb_obstacle", lambda: "no network")
    with pytest.raises(ValueError, match="^2 W&B runs cannot be sent: no network"):
        sync.main([str(tree)])
    with pytest.raises(ValueError, match="^1 W&B run cannot be sent"):
        sync.main([str(tree / "a")])


def test_runs_are_counted_of_which_parts_fail(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sync, "wandb_obstacle", lambda: None)
    monkeypatch.setattr(sync, "send", lambda folder, timeout: None if "r-b" in folder.name else "refused")
    with pytest.raises(ValueError, match="^1 of 2 W&B runs could not be sent"):
        sync.main([str(tree)])
    assert capsys.readouterr().out.startswith("2 W&B runs in 3 parts\n1/3 ")


def test_parts_are_sent_in_the_order_of_their_time_and_not_without_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first part was begun online."""
    for part in ("run-20260101_100000-ra", "offline-run-20260101_110000-ra"):
        folder = tmp_path / "wandb" / part
        folder.mkdir(parents=True)
        (folder / "run.wandb").touch()
    asked: list[str] = []
    monkeypatch.setattr(sync, "wandb_obstacle", lambda: None)
    monkeypatch.setattr(sync, "send", lambda folder, timeout: asked.append(folder.name) or "refused")
    with pytest.raises(ValueError, match="^1 of 1 W&B run could not be sent"):
        sync.main([str(tmp_path)])
    assert asked == ["run-20260101_100000-ra"]
    assert "110000-ra: left for later" in capsys.readouterr().out
