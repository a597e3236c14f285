"""`restora report --data`: the runs as a table that other programs read."""

import csv
import json
import sys

import pytest
from run_folders import record, write_run

from restora.apps.report import main
from restora.reporting.table import write_table


@pytest.fixture
def sweep(tmp_path):
    """Two finished runs that differ in their network, and one that failed with a formula for a name."""
    root = tmp_path / "sweep"
    write_run(root / "0", psnr=27.0, name="dncnn", seed=1)
    write_run(root / "1", psnr=29.0, name="unet", network="unet", seed=2)
    (root / "2").mkdir()
    broken = record(status="failed", error="ValueError", test=None, name="=1+1", network="=1+1", seed=3)
    (root / "2" / "run.json").write_text(json.dumps(broken))
    return root


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_photo_of_every_run_is_a_row(sweep, tmp_path, capsys):
    data = tmp_path / "deep" / "runs.csv"
    assert main([str(sweep), "--data", str(data)]) == 0
    assert f"table: {data}" in capsys.readouterr().out.replace("\n", "")
    rows = read_csv(data)
    found = {(row["folder"], row["photo"]): row["psnr"] for row in rows}
    assert found == {
        ("1", "astronaut"): "29.5",
        ("1", "coffee"): "28.5",
        ("0", "astronaut"): "27.5",
        ("0", "coffee"): "26.5",
        ("2", ""): "",
    }
    first = rows[0]
    assert (first["status"], first["network"], first["parameters"], first["steps"]) == (
        "finished",
        "unet",
        "1234",
        "100",
    )
    assert rows[-1]["status"] == "failed"
    assert rows[-1]["network"] == "'=1+1"  # a spreadsheet would compute it


def test_parquet_has_the_rows_and_types_of_the_csv(sweep, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("runs.csv", "runs.parquet"):
        assert main([str(sweep), "--data", str(tmp_path / name)]) == 0
    table = parquet.read_table(tmp_path / "runs.parquet")
    rows = read_csv(tmp_path / "runs.csv")
    assert table.column_names == list(rows[0])
    assert [str(table.schema.field(name).type) for name in ("psnr", "seed", "network")] == [
        "double",
        "int64",
        "string",
    ]
    for column in table.column_names:
        there = ["" if value is None else str(value) for value in table[column].to_pylist()]
        assert there == [row[column].removeprefix("'") for row in rows], column


def test_settings_that_differ_are_columns(tmp_path):
    for job, depth in enumerate((4, 5)):
        config = record()["config"] | {"network": {"depth": depth, "channels": 8}}
        write_run(tmp_path / "sweep" / str(job), psnr=27.0 + job, config=config)
    assert main([str(tmp_path / "sweep"), "--data", str(tmp_path / "runs.csv")]) == 0
    rows = read_csv(tmp_path / "runs.csv")
    assert [row["network.depth"] for row in rows] == ["5", "5", "4", "4"]
    assert "network.channels" not in rows[0]


def test_a_column_has_one_type(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"a": 1, "b": "x", "c": None, "d": 1, "e": 2**70}, {"a": 2.5, "b": 3, "c": None, "e": 0}]
    write_table(tmp_path / "t.parquet", rows)
    found = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert found == {"a": [1.0, 2.5], "b": ["x", "3"], "c": [None, None], "d": [1, None], "e": [2.0**70, 0.0]}


@pytest.mark.parametrize("name", ["runs.xlsx", "runs"])
def test_another_ending_is_refused_before_anything_is_read(sweep, tmp_path, name):
    with pytest.raises(ValueError, match=r"end with \.csv or \.parquet"):
        main([str(sweep), "--data", str(tmp_path / name)])
    assert not (sweep / "report.html").exists()


def test_parquet_without_its_package_says_what_to_install(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'restora\[parquet\]'"):
        main([str(sweep), "--data", str(tmp_path / "runs.parquet")])
    assert not (sweep / "report.html").exists()
