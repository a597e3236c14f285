"""Severity curves: the benchmark moved along its severity, the points, the table and the page."""

import csv
import math
from pathlib import Path

import pytest

from restora.evaluation.benchmarks.base import Benchmark
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.paired import Paired
from restora.evaluation.methods import ClassicalMethod
from restora.evaluation.results import Result
from restora.evaluation.run import evaluate
from restora.evaluation.severity import Point, at_severity, curve, write_plot, write_table


@pytest.fixture(scope="module")
def points(photo_folder: Path) -> list[Point]:
    benchmark: Benchmark = Denoise(root=str(photo_folder), color="gray", sigma=25)
    results = {
        name: {
            sigma: evaluate(ClassicalMethod(name, "denoise"), at_severity(benchmark, sigma))
            for sigma in (10.0, 25.0, 50.0)
        }
        for name in ("gaussian", "median")
    }
    return curve(results, {"gaussian": (10, 30), "median": None})


def test_points_say_where_they_were_trained(points: list[Point]) -> None:
    found = {(point.method, point.severity): point for point in points}
    assert len(found) == 9
    assert [found["gaussian", sigma].trained for sigma in (10, 25, 50)] == [True, True, False]
    assert found["median", 25].trained is None
    for method in ("input", "gaussian", "median"):
        means = [found[method, sigma].mean for sigma in (10, 25, 50)]
        assert means == sorted(means, reverse=True)
    assert found["gaussian", 50].low < found["gaussian", 50].mean < found["gaussian", 50].high
    assert found["gaussian", 50].mean > found["input", 50].mean + 3


def test_table_and_page_hold_every_point(points: list[Point], tmp_path: Path) -> None:
    write_table(points, tmp_path / "severity.csv")
    with (tmp_path / "severity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == pytest.approx([p.mean for p in points], abs=1e-4)
    assert {row["inside_trained_range"] for row in rows} == {"", "true", "false"}
    write_plot(
        points, {"gaussian": (10, 30)}, tmp_path / "severity.html", severity="sigma", title="three photos"
    )
    page = (tmp_path / "severity.html").read_text()
    for text in ("gaussian trained here", "three photos", "PSNR (dB)", '"dash":"dot"'):
        assert text in page


def test_a_curve_without_noise_is_infinite_there(tmp_path: Path) -> None:
    rows = [{"name": name, "psnr": 40.0, "input_psnr": math.inf} for name in "ab"]
    points = curve({"median": {0.0: Result("median", {}, rows)}}, {})
    assert [math.isinf(point.mean) for point in points] == [True, False]
    write_table(points, tmp_path / "severity.csv")
    assert "input,0,inf,inf,inf," in (tmp_path / "severity.csv").read_text()
    write_plot(points, {}, tmp_path / "severity.html", severity="sigma")
    assert "Infinity" not in (tmp_path / "severity.html").read_text().partition("Plotly.newPlot(")[2]


def test_quality_stays_a_whole_number(photo_folder: Path) -> None:
    moved = at_severity(Jpeg(root=str(photo_folder), color="gray", quality=10), 40.0)
    assert isinstance(moved, Jpeg)
    assert moved.quality == 40
    assert isinstance(moved.quality, int)


def test_pairs_have_no_severity(photo_folder: Path) -> None:
    with pytest.raises(ValueError, match="no severity"):
        at_severity(Paired(root=str(photo_folder), degraded_root=str(photo_folder), color="rgb"), 3)
