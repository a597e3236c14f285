"""Outputs that cannot be written are refused before anything is computed."""

from pathlib import Path

import pytest

from restora.cli import main


@pytest.mark.parametrize(
    "words",
    [
        ["report", "RUNS", "--output", "FILE/report.html"],
        ["report", "RUNS", "--data", "FILE/runs.csv"],
        ["report", "RUNS", "--data", "RUNS.csv"],
        ["preview", "degradation=jpeg", "output=FILE/sheet.png"],
        ["bench", "output=FILE/cost.json"],
        [
            "evaluate",
            "classical=bicubic",
            "benchmark=super_resolution",
            "benchmark.scale=2",
            "output=FILE/new",
        ],
        ["evaluate", "compare=RUNS,RUNS", "output=FILE"],
        ["export", "zoo:half_minute", "FILE/new"],
    ],
    ids=lambda words: f"{words[0]}-{words[-1]}",
)
def test_an_output_that_cannot_be_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for name in ("RUNS/run", "RUNS.csv"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "RUNS" / "run" / "run.json").write_text("{}")
    (tmp_path / "RUNS" / "run" / "per_image.csv").write_text("name,psnr\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "RUNS" / "a.png")
    (tmp_path / "FILE").write_text("kept")
    monkeypatch.chdir(tmp_path)
    if words[0] == "evaluate":
        words = [*words, "benchmark.root=RUNS"] if "compare" not in words[1] else words
    for computing in (
        "restora.reporting.page.page",
        "restora.apps.evaluate_run.run",
        "restora.artifact.parity.read_samples",
    ):
        monkeypatch.setattr(computing, None)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "FILE is a file; name a" in said or "RUNS.csv is a folder; name a file" in said
    assert said.count("\n") == 1
