"""Stored results compared: seeds found in subfolders, verdicts that know which way is better, limits said."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from restora.apps.bench import _show as show_cost
from restora.data.progress import progress
from restora.evaluation.comparison import compare, read_methods
from restora.evaluation.results import Result, read_result, read_seeds
from restora.evaluation.severity import Point
from restora.evaluation.statistics import paired_difference
from restora.evaluation.tables import results_table, severity_table, verdict
from restora.training.costing import Recipe, total
from restora.training.measuring import StageCost

PHOTOS = np.random.default_rng(0).normal(29, 3, 24)


def result(name: str, shift: float, seed: int = 0, **benchmark) -> Result:
    noise = np.random.default_rng(seed).normal(0, 0.02, 24)
    rows = [
        {
            "name": f"photo{index:02d}",
            "psnr": round(float(value), 6),
            "ssim": round(float(value) / 40, 6),
            "lpips": round(1 - float(value) / 40, 6),
            "input_psnr": 20.0,
            "input_ssim": 0.4,
            "input_lpips": 0.6,
            "seconds": 0.1,
            "height": 64.0,
            "width": 64.0,
        }
        for index, value in enumerate(PHOTOS + shift + noise)
    ]
    return Result(name=name, benchmark={"task": "denoise", "sigma": 25} | benchmark, rows=rows)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    for seed in range(3):
        result("wide", 0.3, seed).write(tmp_path / "wide" / f"seed{seed}")
        result("narrow", 0.0, seed + 10).write(tmp_path / "narrow" / f"seed{seed}")
    result("other", 0.0, sigma=50).write(tmp_path / "other")
    return {path.name: str(path) for path in tmp_path.iterdir()}


def run(folders: list[str], output: Path | None) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    compare(folders, output, console)
    return console.export_text()


def test_photo_names_are_no_formulas_in_a_spreadsheet_and_are_read_back(tmp_path: Path) -> None:
    one = result("=cmd|' /C calc'!A0", 0.0)
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''=1", "'plain", "a=b", 'x",=1']
    for row, name in zip(one.rows, names, strict=False):
        row["name"] = name
    one.write(tmp_path)
    with (tmp_path / "per_image.csv").open(newline="") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r\n"]
    assert [row["name"] for row in read_result(tmp_path).rows[: len(names)]] == names


@pytest.mark.parametrize(
    "content", [b"name\n" + b"x" * 200_000, b"a,b\n1,2\n", b"\xff\xfe", b"name,psnr\na,b,c\n"]
)
def test_results_that_are_none_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    result("a", 0.0).write(tmp_path)
    (tmp_path / "per_image.csv").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        read_result(tmp_path)


def test_seeds_are_the_result_folders_below(folders: dict[str, str], tmp_path: Path) -> None:
    printed = run([folders["wide"], folders["narrow"]], tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    pair = stored["pairs"][0]
    assert pair["psnr"]["seeds"] == [3, 3]
    assert pair["psnr"]["difference"] == pytest.approx(0.3, abs=0.02)
    assert pair["psnr"]["p_seeds"] == 0.25  # the least that three pairs can give
    assert pair["psnr"]["verdict"] == "wide"
    assert [line["rank"] for line in stored["leaderboard"]] == [1, 2]
    assert max(map(len, printed.splitlines())) <= 80


def test_verdicts_on_several_pairs_have_holms_correction_as_ranks_have(tmp_path: Path) -> None:
    """Of six photos p is 1/32 at least: enough for one pair and not for three."""
    for name, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0)):
        one = result(name, shift)
        del one.rows[6:]
        one.write(tmp_path / name)
    verdicts = {}
    for names in ("ab", "abc"):
        run([str(tmp_path / name) for name in names], tmp_path / "out")
        stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
        pair = stored["pairs"][0]["psnr"]
        verdicts[names] = pair["verdict"], pair["p_photos"], pair["p_corrected"]
        assert (stored["leaderboard"][0]["tied_with"] == []) == (pair["verdict"] == "b")
    assert verdicts == {"ab": ("b", 1 / 32, 1 / 32), "abc": ("cannot tell", 1 / 32, 3 / 32)}


def test_one_photo_has_no_interval(tmp_path: Path) -> None:
    for name, psnr in (("a", 30.0), ("b", 29.0)):
        Result(name, {}, [{"name": "photo", "psnr": psnr, "seconds": 0.1}]).write(tmp_path / name)
    printed = run([str(tmp_path / "a"), str(tmp_path / "b")], None)
    assert "30.000" in printed
    assert "30.00–" not in printed
    assert "[+1" not in printed


def test_lower_is_better_for_distances(folders: dict[str, str], tmp_path: Path) -> None:
    run([folders["narrow"], folders["wide"]], tmp_path / "out")
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    assert pair["lpips"]["difference"] > 0
    assert pair["lpips"]["verdict"] == pair["psnr"]["verdict"] == "wide"


def test_verdicts_are_given_only_when_the_data_decide() -> None:
    same = paired_difference([result("a", 0, 1).scores()], [result("b", 0, 2).scores()])
    apart = paired_difference([result("a", 1, 1).scores()], [result("b", 0, 2).scores()])
    assert verdict(same, True, "a", "b") == "cannot tell"
    assert verdict(apart, True, "a", "b") == "a"
    assert verdict(apart, False, "a", "b") == "b"


def test_different_benchmarks_are_not_compared(folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="sigma is 25 for wide and 50 for other"):
        run([folders["wide"], folders["other"]], None)


@pytest.mark.parametrize("key", ["input_psnr", "height"])
def test_other_photos_by_the_same_names_are_not_compared(key: str, tmp_path: Path) -> None:
    one, other = result("one", 0), result("two", 0)
    for row in other.rows:
        row["input_psnr"] += 0.004  # decoded by another library
    other.rows[-1][key] += 0.1
    one.write(tmp_path / "one")
    other.write(tmp_path / "two")
    with pytest.raises(ValueError, match="not of the same photos, degraded alike: photo23"):
        run([str(tmp_path / "one"), str(tmp_path / "two")], None)


def test_results_of_several_methods_are_no_seeds_of_one(tmp_path: Path) -> None:
    for seed, (name, size) in enumerate([("a", 5), ("b", 5), ("c", 7)]):
        made = result(name, 0, seed)
        made.method = {"network": "DnCNN", "parameters": size, "source": f"outputs/{name}"}
        made.write(tmp_path / ("seeds" if size == 5 else "") / name)
    assert len(read_seeds(tmp_path / "seeds")) == 2
    with pytest.raises(ValueError, match="holds results of several methods"):
        read_seeds(tmp_path)


def test_equal_names_are_replaced_by_the_folders(tmp_path: Path) -> None:
    for name in ("first", "second"):
        result("dncnn", 0).write(tmp_path / name)
    assert list(read_methods([str(tmp_path / "first"), str(tmp_path / "second")])) == ["first", "second"]
    with pytest.raises(ValueError, match="twice"):
        read_methods([str(tmp_path / "first")] * 2)


def test_the_table_puts_the_best_first_and_marks_what_is_shared() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    results = [result("behind", -1.0, 1), result("good", 0.0, 2), result("also good", 0.0, 3)]
    console.print(results_table(results, "BSD68"))
    printed = console.export_text()
    assert printed.index("input") < printed.index("good") < printed.index("behind")
    assert "1=" in printed
    assert "│  3 │" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_titles_are_not_broken_at_the_width_of_a_narrow_table() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(severity_table([Point("a", 25.0, 30.0, 29.0, 31.0, False)], "sigma"))
    first, *_, last = console.export_text().splitlines()
    assert first == "PSNR in dB by noise σ (8-bit scale)"
    assert last == "(…): outside the range that the network was trained on"


def test_names_are_never_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every table with names that users choose; `[/raw]` would end a style that never began."""
    names = ["[/raw]", "[bold]x[/bold]"]
    for name, shift in zip(names, (0.3, 0.0), strict=True):
        result(name, shift).write(tmp_path / name.replace("/", "-"))
    said = run([str(path) for path in sorted(tmp_path.iterdir())], None)
    results = [result(name, 0.1) for name in names]
    points = [Point(name, 25.0, 30.0, 29.0, 31.0, False) for name in names]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(results, "[/raw] folder"))
    console.print(severity_table(points, "sigma"))
    said += console.export_text()
    stage = StageCost(0, 64, 4, [1.0] * 4, {"data": 1.0}, 2**30, "process", 4.0)
    recipe = Recipe(100, 1, None, None)
    show_cost(
        total(
            experiment=names[0], machine=names[1], processes=1, stages=[stage], validation=None, recipe=recipe
        )
    )
    with progress(names[0], 2) as advance:
        advance(1)
    said += capsys.readouterr().out
    for name in names:
        assert said.count(name) >= 4, said
    assert "[/raw] folder" in said
