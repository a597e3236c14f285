"""metrics.csv keeps every number, whatever is logged when, and survives a run that goes on."""

import csv
from pathlib import Path

from restora.training.metrics_csv import MetricsCsv


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_metrics_add_columns_and_lose_nothing(tmp_path: Path) -> None:
    log = MetricsCsv(path=tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 0.5, "epoch": 0}, step=0)
    log.log_metrics({"val/psnr": 30.0, "epoch": 0}, step=1)
    log.log_metrics({"train/loss": 0.25, "epoch": 1}, step=2)
    read = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in read] == ["0", "1", "2"]
    assert [row["train/loss"] for row in read] == ["0.5", "", "0.25"]
    assert [row["val/psnr"] for row in read] == ["", "30.0", ""]


def test_going_on_drops_what_will_be_computed_again(tmp_path: Path) -> None:
    first = MetricsCsv(path=tmp_path / "metrics.csv")
    for step in range(6):
        first.log_metrics({"train/loss": float(step), "epoch": 0}, step=step)
    second = MetricsCsv(path=tmp_path / "metrics.csv")
    second.continue_from(4)  # four steps are in the checkpoint: 0 to 3
    second.log_metrics({"train/loss": 40.0, "epoch": 0}, step=4)
    assert [row["train/loss"] for row in rows(tmp_path / "metrics.csv")] == [
        "0.0",
        "1.0",
        "2.0",
        "3.0",
        "40.0",
    ]
    seconds = [float(row["seconds"]) for row in rows(tmp_path / "metrics.csv")]
    assert seconds == sorted(seconds)
