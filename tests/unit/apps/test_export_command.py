"""`restora export`: what is said of sources that are none."""

import pytest

from restora.cli import main


@pytest.mark.parametrize("name", ["nowhere/model.ckpt", "nowhere", "weights=nowhere.pth"])
def test_a_source_that_is_not_there_is_answered_with_every_kind(
    name: str, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with checkpoints and run folders alone, as those that hold a record."""
    assert main(["export", name, str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    for kind in ("a run folder", "a checkpoint (.ckpt)", "a weights file (.pth", "(.onnx", "zoo:NAME"):
        assert kind in " ".join(said.split())
    assert not (tmp_path / "model").exists()


def test_a_model_without_its_prefix_is_named(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "photo", str(tmp_path / "model")]) == 2
    assert "is zoo:photo" in capsys.readouterr().err
