"""`benchmarks/scaling.py` and `speed_run.py`: lines are fitted, and leaders lead, by what is kept."""

import csv
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import ROOT, benchmark

COMMON = {"cpu": "a CPU", "commit": "abc", "date": "2026-01-01"}


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    return benchmark("scaling")


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return benchmark("speed_run")


def power_law(scaling: ModuleType, *, network: str = "unet", loss: float = 0.0) -> list:
    return [
        scaling.Run(
            network,
            "small",
            1000,
            10**place,
            1e12 * 10**place,
            1.0 * 10**place,
            28 + 0.8 * place - loss,
            **COMMON,
        )
        for place in range(4)
    ]


def test_a_power_law_is_found(scaling: ModuleType) -> None:
    line = scaling.fit(power_law(scaling))
    assert line.decade == pytest.approx(0.8)
    assert line.first == pytest.approx(28)
    assert line.spread == pytest.approx(0, abs=1e-9)
    assert line.psnr(1e4) == pytest.approx(28 + 0.8 * 4)


def test_only_what_nothing_as_quick_beats_is_fitted(scaling: ModuleType) -> None:
    front = power_law(scaling)
    worse = power_law(scaling, network="nafnet", loss=0.5)
    dearer = [replace(run, minutes=5 * run.minutes, psnr=run.psnr - 0.1) for run in front]
    assert scaling.best([*worse, *dearer, *front]) == front
    rows = list(scaling.table([*worse, *front]))
    assert sum("best for its time" in row for row in rows) == len(front)
    assert rows[-3].startswith("all: 28.00 dB after a minute, +0.80 dB")


def test_runs_are_read_as_they_were_written(scaling: ModuleType, tmp_path: Path) -> None:
    runs = power_law(scaling)
    scaling.write(iter(runs), tmp_path / "scaling.csv")
    assert scaling.read(tmp_path / "scaling.csv") == runs
    again = replace(runs[0], psnr=29.0)
    assert scaling.joined(runs, [again]) == [again, *runs[1:]]


def test_leaders_are_those_that_get_there_soonest(speed: ModuleType, tmp_path: Path) -> None:
    path, goal = tmp_path / "runs.csv", speed.GOALS["cbm3d"].psnr
    for name, psnr, minutes in (("slow", goal, 3.0), ("quick", goal + 0.1, 1.0), ("short", goal - 0.01, 0.5)):
        line = dict.fromkeys(speed._COLUMNS, "1") | {"goal": "cbm3d", "psnr": f"{psnr:.3f}", "words": ""}
        speed.keep(line | {"minutes": f"{minutes:.2f}"}, name, path)
    _, _, *rows = speed.table(path)
    assert [row.split(" | ")[4] for row in rows] == ["quick", "slow", "short"]
    assert ["missed" in row for row in rows] == [False, False, True]


def test_what_is_kept_in_the_repository_is_of_known_goals(speed: ModuleType, scaling: ModuleType) -> None:
    runs = ROOT / "docs" / "speed_runs.csv"
    if runs.exists():
        with runs.open(encoding="utf-8") as file:
            assert {line["goal"] for line in csv.DictReader(file)} <= set(speed.GOALS)
    kept = ROOT / "experiments" / "scaling" / "scaling.csv"
    if kept.exists():
        assert len(scaling.best(scaling.read(kept))) > 1
