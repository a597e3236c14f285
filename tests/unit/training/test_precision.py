"""`precision=auto`: what it is on a machine, what a resumed run keeps, and what is said where it is slow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from restora import vocabulary
from restora.config import ConfigError, compose
from restora.files import write_json
from restora.sweeping.plan import identity, jobs_in
from restora.training import starting
from restora.training.opening import opening_line
from restora.training.record import RunInfo, RunRecord
from restora.training.settings import slow_precision, trainer_options

WORDS = ["network=dncnn_small", "network.channels=4", "name=tiny", "run_dir=run"]
AUTO = "trainer.precision=auto"


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether this machine's processor has instructions for bfloat16, and whether there is a GPU."""
    found = {"bfloat16": False, "gpu": False}
    monkeypatch.setattr(vocabulary.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: found["bfloat16"])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    gpu = torch.device("cuda")
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: gpu if found["gpu"] else None
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found["gpu"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: found["gpu"])
    return found


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a run in `tmp_path` that stops at once; gives the precision that it would be trained in."""

    def train(config: DictConfig, info: RunInfo) -> float:
        (info.folder / "checkpoints").mkdir(exist_ok=True)
        record = RunRecord(info)
        record.close("stopped")
        assert config.trainer.precision == info.precision
        return 0.0

    monkeypatch.setattr(starting, "train", train)

    def start(*words: str, resume: bool = False, overrides: tuple[str, ...] = ()) -> str:
        config = compose("train", [*WORDS, *words, *([f"resume={tmp_path}"] if resume else [])])
        plain: Any = OmegaConf.to_container(config, resolve=True)
        info = RunInfo(folder=tmp_path, config=plain, overrides=[*words, *overrides], cwd=str(tmp_path))
        starting.start(config, replace(info, sweep={"job": 0, "overrides": list(words)}))
        return str(written(tmp_path)["precision"])

    return start


def written(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "run.json").read_text())
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize(
    ("here", "accelerator", "found"),
    [
        ({}, "cpu", "32-true"),
        ({"bfloat16": True}, "cpu", "bf16-mixed"),
        ({"bfloat16": True}, "auto", "bf16-mixed"),
        ({"bfloat16": True, "gpu": False}, "mps", "32-true"),
        ({"gpu": True}, "cpu", "32-true"),
        ({"gpu": True}, "auto", "bf16-mixed"),
    ],
    ids=str,
)
def test_auto_is_what_the_trainers_device_is_fast_in(
    here: dict[str, bool],
    accelerator: str,
    found: str,
    units: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units |= here
    monkeypatch.setattr(
        "restora.training.settings.check_arguments", lambda *_, **__: None
    )  # makes no trainer
    config = compose("train", [*WORDS, AUTO, f"trainer.accelerator={accelerator}"])
    assert trainer_options(config)["precision"] == found


@pytest.mark.parametrize("words", [["trainer=gpu"], ["experiments=video/fastdvdnet"]], ids=str)
def test_a_gpu_without_units_for_bfloat16_computes_in_float32(
    words: list[str], units: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a V100 or T4, where torch emulates bfloat16."""
    monkeypatch.setattr("restora.training.settings.check_arguments", lambda *_, **__: None)
    config = compose("train", words)
    units |= {"gpu": True}
    assert trainer_options(config)["precision"] == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert trainer_options(config)["precision"] == "32-true"


def test_a_run_keeps_its_precision_on_another_machine(
    units: dict[str, bool], started: Any, tmp_path: Path
) -> None:
    assert started(AUTO) == "32-true"
    units["bfloat16"] = True
    assert started(AUTO) == "32-true"
    assert started(AUTO, resume=True) == "32-true"
    assert written(tmp_path)["changes"] == []


def test_auto_that_is_typed_for_a_resumed_run_is_decided_here(units: dict[str, bool], started: Any) -> None:
    units["bfloat16"] = True
    assert started("trainer.precision=bf16-mixed") == "bf16-mixed"
    units["bfloat16"] = False
    assert started(AUTO, resume=True) == "32-true"


def test_a_run_of_before_its_recipe_said_auto_is_the_same_run(
    units: dict[str, bool], started: Any, tmp_path: Path
) -> None:
    """Its record has no precision of its own; the recipe's bf16-mixed was in its configuration."""
    assert started("trainer.precision=bf16-mixed") == "bf16-mixed"
    record = written(tmp_path)
    del record["precision"]
    write_json(tmp_path / "run.json", record | {"overrides": [AUTO]})
    assert started(AUTO) == "bf16-mixed"
    assert written(tmp_path)["config"]["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize("place", ["precision", "config"])
def test_a_precision_in_a_record_is_a_word_and_nothing_more(
    place: str, units: dict[str, bool], started: Any, tmp_path: Path
) -> None:
    started(AUTO)
    record = written(tmp_path)
    text = "${oc.env:HOME}"
    record[place] = text if place == "precision" else {"trainer": {"precision": text}}
    record["precision"] = record["precision"] if place == "precision" else None
    write_json(tmp_path / "run.json", record)
    with pytest.raises(ConfigError, match=r"run.json has precision=\$\{oc.env:HOME\}: expected one of"):
        started(AUTO)


def test_a_job_of_a_sweep_is_found_again_by_what_was_asked_for(
    units: dict[str, bool], started: Any, tmp_path: Path
) -> None:
    """The identities in a lost plan come from the folders of the jobs, trained on any machine."""
    planned: Any = OmegaConf.to_container(compose("train", [*WORDS, AUTO]), resolve=True)
    units["bfloat16"] = True
    assert started(AUTO) == "bf16-mixed"
    assert [job.identity for job in jobs_in(tmp_path.parent)] == [identity(planned)]


def test_the_first_line_of_a_run_says_what_auto_is() -> None:
    config = compose("train", [*WORDS, "precision=bf16"])
    assert opening_line(config, decided=True).endswith("; bfloat16 by precision=auto")
    assert "precision" not in opening_line(config)


def test_a_run_in_slow_bfloat16_says_so(units: dict[str, bool]) -> None:
    slow, auto = (compose("train", [*WORDS, f"precision={word}"]) for word in ("bf16", "auto"))
    assert "no instructions for bfloat16" in slow_precision(slow)
    assert slow_precision(auto) == ""
    units["bfloat16"] = True
    assert slow_precision(slow) == ""
