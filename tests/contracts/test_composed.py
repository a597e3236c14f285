"""Options keep their names and every key with its value: `composed.json` has those of the time when each was
a file of its own that spelt all of them out. A line there changes only when an option is meant to change."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from restora.composing.sources import ConfFolder, Unreadable, laid_over
from restora.config import parts

FROZEN: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("composed.json").read_text(encoding="utf-8")
)


def frozen(group: str) -> dict[str, dict[str, Any]]:
    return {key.partition("/")[2]: node for key, node in FROZEN.items() if key.startswith(f"{group}/")}


@pytest.mark.parametrize(
    "group", ["network", "discriminator", "degradation", "loss", "adversarial", "perceptual", "schedule"]
)
def test_no_option_and_no_key_is_lost(group: str) -> None:
    made = parts(group)
    for name, node in frozen(group).items():
        assert made.get(name) == node, f"{group}={name} is not what it was"


def test_composing_does_not_import_torch() -> None:
    code = (
        "import sys; from restora.config import compose; compose('train', ['network=swinir_classical']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_in_variants_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    text = "_target_: charbonnier\neps: 1\nvariants:\n  fine: {eps: 1e-3}\n"
    (tmp_path / "loss" / "coarse.yaml").write_text(text)
    assert ConfFolder("test", f"restora://{tmp_path}").load_config("loss/fine").config.eps == 1e-3


def test_a_variant_replaces_choices_of_the_defaults_list() -> None:
    base = {"defaults": [{"override /network": "a"}, "_self_"], "x": {"y": 1, "z": 2}}
    over = {"defaults": [{"override /network": "b"}, {"override /data": "c"}], "x": {"y": 3}}
    chosen = [{"override /network": "b"}, "_self_", {"override /data": "c"}]
    assert laid_over(base, over) == {"defaults": chosen, "x": {"y": 3, "z": 2}}
    assert base["x"]["y"] == 1, "the file's own option stays what it is"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "twice.yaml").write_text("_target_: charbonnier\neps: 1\neps: 2\n")
    with pytest.raises(Unreadable, match=r"twice\.yaml: line 3.*eps is given twice"):
        ConfFolder("test", f"restora://{tmp_path}").load_config("loss/twice")
