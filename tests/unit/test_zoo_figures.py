"""The figures of shipped models in the documents are those in the models' own files."""

import json
import re
from pathlib import Path

import pytest

from restora.zoo.index import names

RECIPES = "experiments/zoo/README.md"
ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    name: json.loads((ROOT / "src/restora/zoo/models" / name / "model.json").read_text(encoding="utf-8"))
    for name in names()
}


def rows(page: str) -> list[str]:
    return [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def named_in(row: str) -> list[str]:
    """The models of a row of README: `zoo:sr_x2`, `sr_x4`, where a second name may be its last part alone."""
    words = [word.removeprefix("zoo:") for word in re.findall(r"`([\w:]+)`", row)]
    return [word if word in MODELS else f"{words[0].rpartition('_')[0]}_{word}" for word in words]


def figures_of(models: list[str]) -> tuple[set[str], set[str]]:
    """(restored, degraded) in dB, as they are written."""
    benchmarks = [figures for name in models for figures in MODELS[name]["metrics"]["benchmarks"]]
    return tuple({f"{figures[key]:.2f}" for figures in benchmarks} for key in ("psnr", "input_psnr"))


FIRST = [row for row in rows("README.md") if "`zoo:" in row]


def test_readme_has_every_model_of_which_it_speaks() -> None:
    assert {name for row in FIRST for name in named_in(row)} == {*MODELS} - {"half_minute"}


@pytest.mark.parametrize("row", FIRST, ids=lambda row: named_in(row)[0])
def test_the_figures_of_readme_are_those_of_the_models(row: str) -> None:
    restored, degraded = figures_of(named_in(row))
    bold = re.findall(r"\d+\.\d\d", " ".join(re.findall(r"\*\*(.+?)\*\*", row)))
    assert bold
    assert {*bold} <= restored
    before = re.findall(r"([\d./ ]+) → \*\*", row)
    assert {*re.findall(r"\d+\.\d\d", " ".join(before))} <= degraded


def test_the_table_of_the_recipes_is_that_of_the_models() -> None:
    cells_of = [[cell.strip(" `") for cell in row.split("|")[1:5]] for row in rows(RECIPES)]
    found = {tuple(cells) for cells in cells_of if cells[-1].endswith(" dB")}
    expected = {
        (name, figures["benchmark"], f"{figures['input_psnr']:.2f}", f"{figures['psnr']:.2f} dB")
        for name, model in MODELS.items()
        for figures in model["metrics"]["benchmarks"]
    }
    assert found == expected


def test_the_guide_names_every_model() -> None:
    guide = (ROOT / "docs/how-to/zoo.md").read_text(encoding="utf-8")
    assert {*MODELS} <= {*re.findall(r"\w+", guide)}
