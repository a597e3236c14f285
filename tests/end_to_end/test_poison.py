"""Steps whose numbers are not finite leave the weights alone, are named, and end a run only when there is no
way back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_runs import DNCNN, UNLOGGED

from restora.apps.preview_poison import _made_again
from restora.cli import main
from restora.config import compose
from restora.files import read_json_lines, write_json

QUICK = [
    *DNCNN,
    *UNLOGGED,
    "data.batch_size=2",
    "data.steps_per_epoch=20",
    "trainer.max_steps=20",
    "trainer.val_check_interval=10",
    "callbacks.last.every_n_steps=2",
    "+callbacks.fault._target_=fault_callbacks.Poison",
]


@pytest.fixture(autouse=True)
def here(shared_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)


def train(folder: Path, what: str, steps: str, *words: str) -> int:
    fault = [f"+callbacks.fault.what={what}", f"+callbacks.fault.steps={steps}"]
    return main(["train", *QUICK, *fault, *words, f"hydra.run.dir={folder}"])


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


def test_a_poisoned_step_is_left_out_named_and_shown_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "degraded", "[4,5,13]") == 0
    assert record(tmp_path / "run")["status"] == "finished"
    rows = read_json_lines(tmp_path / "run" / "poison.jsonl")
    assert [row["step"] for row in rows] == [4, 5, 13]
    for row in rows:
        assert len(row["photos"]) == len(row["keys"]) == 2
        assert row["degradation"]
    said = " ".join("".join(capfd.readouterr()).split())
    assert "step 4 is skipped" in said
    assert rows[0]["photos"][0] in said
    assert "3 steps were not finite and were skipped" in said
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())

    sheet = tmp_path / "sheet.png"
    assert main(["preview", f"poison={tmp_path / 'run'}", "step=5", f"output={sheet}"]) == 0
    assert f"batch {rows[1]['batches']}" in capfd.readouterr().out
    assert Image.open(sheet).height > 300
    (batch,) = _made_again(tmp_path / "run", rows[1]["batches"])
    assert batch.names == rows[1]["photos"]
    assert batch.keys is not None
    assert batch.keys.tolist() == rows[1]["keys"]
    assert main(["preview", f"poison={tmp_path / 'run'}", "step=6"]) == 2
    assert "set step= to one of 4, 5, 13" in capfd.readouterr().err


def test_a_batch_of_on_demand_learning_is_made_again_with_the_shares_of_its_step(tmp_path: Path) -> None:
    config = compose("train", [*DNCNN, "degradation=on_demand_noise", "data.batch_size=2"])
    built = {key: OmegaConf.to_container(config[key], resolve=True) for key in ("data", "degradation")}
    write_json(tmp_path / "run.json", {"config": built})
    made = []
    for chosen in list(config.degradation.stages)[::2]:
        shares = {name: float(name == chosen) for name in config.degradation.stages}
        (batch,) = _made_again(tmp_path, [3], shares)
        assert batch.clean is not None
        made.append((batch.degraded - batch.clean).std())
    assert made == sorted(made), "from mild to strong noise"


def test_after_too_many_in_a_row_a_run_goes_back_with_a_smaller_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "gradient", "[8,9,10]", "callbacks.non_finite.patience=3") == 0
    assert "0.5 of the learning rate" in "".join(capfd.readouterr())
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] == pytest.approx(0.0005)


@pytest.mark.parametrize("words", [["callbacks.non_finite.then=stop"], ["callbacks.non_finite.returns=1"]])
def test_a_run_that_stays_poisoned_fails_with_one_message(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = str(list(range(6, 20))).replace(" ", "")
    assert train(tmp_path / "run", "gradient", steps, "callbacks.non_finite.patience=3", *words) == 2
    assert "3 steps in a row were not finite" in capfd.readouterr().err
    assert record(tmp_path / "run")["status"] == "failed"
