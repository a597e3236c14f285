"""metrics.csv keeps every number, whatever is logged when, and survives a run that goes on."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text + '4,0,"',
        lambda text: text.replace("\r\n2,", '\r\n"2,'),
        lambda text: text.replace("\r\n2,", f"\r\n2{'0' * 200_000},"),
        lambda text: text.replace("\r\n2,", "\r\n2\0,"),
        lambda text: text.replace("\r\n2,", "\r\n-2,"),
        lambda text: text[:-9],
        lambda text: text + "".join(f'"{"x" * 70_000}\n' for _ in range(3)),
    ],
)
def test_a_damaged_row_is_named_and_costs_no_other(
    damage: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, path = MetricsCsv(path=tmp_path / "metrics.csv"), tmp_path / "metrics.csv"
    for step in range(5):
        log.log_metrics({"train/loss": 0.125 + step, "epoch": 0}, step=step)
    whole = path.read_bytes().decode()
    damaged = damage(whole)
    path.write_bytes(damaged.encode())
    MetricsCsv(path=path).continue_from(9)
    kept, known = path.read_bytes().decode().splitlines(), set(damaged.splitlines()) & set(whole.splitlines())
    assert kept == [line for line in whole.splitlines() if line in known]
    assert str(path) in caplog.text


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


@pytest.mark.parametrize("metric", ["val/psnr", "val/loss"])
def test_a_resumed_run_knows_whether_its_last_step_was_validated(metric: str, tmp_path: Path) -> None:
    """Without clean photos there is no PSNR."""
    first = MetricsCsv(path=tmp_path / "metrics.csv")
    for step in range(4):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.log_metrics({metric: 0.5}, step=3)
    assert MetricsCsv(path=tmp_path / "metrics.csv").continue_from(4)
    assert not MetricsCsv(path=tmp_path / "metrics.csv").continue_from(3)


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.symlink_to("/dev/full")
    table = MetricsCsv(path=path)
    table.columns.append("loss")
    with pytest.raises(OSError, match="No space left") as failure:
        table.log_metrics({"loss": 1.0}, step=1)
    assert failure.value.filename == str(path)
