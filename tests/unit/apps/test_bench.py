"""What a run will cost: measured on the path that trains, and summed up over its recipe."""

import json
import logging

import pytest

from restora.apps import bench
from restora.cli import main
from restora.config import compose
from restora.training.costing import Recipe, recipe_of, total
from restora.training.measuring import PARTS, StageCost, Validation, processes_of

TINY = [
    "network=dncnn_small",
    "network.channels=4",
    "network.in_channels=3",
    "data.patch_size=32",
    "data.batch_size=2",
    "data.val_crop=48",
    "steps=3",
    "warm_up=1",
]


def stage(start: int, seconds: float) -> StageCost:
    shares = dict.fromkeys(PARTS, 0.25)
    return StageCost(start, 64, 4, [seconds] * 4, shares, 2**30, "process", 4 / seconds)


def summed(stages: list[StageCost], recipe: Recipe, validation: Validation | None = None):
    return total(
        experiment="e", machine="m", processes=1, stages=stages, validation=validation, recipe=recipe
    )


def test_every_stage_counts_until_the_next_begins() -> None:
    cost = summed([stage(0, 1.0), stage(1000, 2.0)], Recipe(3000, 1, None, None))
    assert cost.hours == pytest.approx((1000 * 1 + 2000 * 2) / 3600)
    assert cost.steps == 3000


def test_steps_of_several_batches_take_as_long_as_those() -> None:
    cost = summed([stage(0, 1.0)], Recipe(100, 4, None, None))
    assert (cost.steps, cost.hours) == (100, pytest.approx(400 / 3600))
    cost = summed([stage(0, 1.0), stage(75, 2.0)], Recipe(100, 4, None, None))
    assert cost.hours == pytest.approx((300 + 100 * 2) / 3600)  # stages begin at steps


def test_time_that_ends_a_run_is_its_cost_and_steps_are_what_fits() -> None:
    cost = summed([stage(0, 0.5), stage(20, 1.0)], Recipe(-1, 1, None, 40.0))
    assert cost.steps == 20 + 30
    assert cost.hours == pytest.approx(40 / 3600)


def test_time_that_ends_in_a_stage_leaves_none_for_the_next() -> None:
    cost = summed([stage(0, 1.0), stage(1000, 0.1)], Recipe(5000, 1, None, 10.5))
    assert cost.steps == 10
    assert cost.hours == pytest.approx(10.5 / 3600)


def test_validations_are_part_of_the_hours() -> None:
    cost = summed([stage(0, 1.0)], Recipe(1000, 1, 100, None), Validation(5, 2.0))
    assert cost.hours == pytest.approx((1000 + 10 * 5 * 2.0) / 3600)
    assert cost.validation_hours == pytest.approx(100 / 3600)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Recipe(20000, 1, 500, None)),
        (["trainer=quick"], Recipe(-1, 1, 200, 75.0)),
        (["trainer.max_steps=-1", "trainer.max_time='00:01:00:30'"], Recipe(-1, 1, 500, 3630.0)),
        (["trainer.max_steps=-1", "trainer.max_epochs=3"], Recipe(1500, 1, 500, None)),
        (["trainer.max_steps=2000", "trainer.max_epochs=3"], Recipe(1500, 1, 500, None)),
        (["trainer.max_epochs=3", "trainer.accumulate_grad_batches=3"], Recipe(501, 3, 500, None)),
        (
            ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=0.5"],
            Recipe(20000, 2, 250, None),
        ),
        (
            ["trainer.check_val_every_n_epoch=4", "trainer.val_check_interval=1.0"],
            Recipe(20000, 1, 2000, None),
        ),
    ],
    ids=str,
)
@pytest.mark.slow
def test_the_recipe_is_read_from_the_trainer(overrides: list[str], expected: Recipe) -> None:
    assert recipe_of(compose("train", overrides)) == expected


@pytest.mark.parametrize("family", ["residual_cnn", "gan"])
def test_a_few_steps_are_measured_and_shown(family, tmp_path, shared_data_dir, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    monkeypatch.chdir(tmp_path)
    extra = (
        ["family=gan", "discriminator@objective.adversarial.discriminator=patch_small"]
        if family == "gan"
        else []
    )
    monkeypatch.setattr("restora.vocabulary.has_bfloat16", lambda device: False)
    assert main(["bench", *TINY, *extra, "precision=auto", "output=cost.json"]) == 0
    cost = json.loads((tmp_path / "cost.json").read_text())
    (measured,) = cost["stages"]
    assert len(measured["seconds"]) == 3
    assert set(measured["shares"]) == set(PARTS)
    assert sum(measured["shares"].values()) == pytest.approx(1)
    assert min(measured["shares"].values()) > 0
    assert measured["shares"]["network"] > measured["shares"]["data"]
    assert cost["validation"]["photos"] == 1
    assert cost["machine"].endswith(", 32-true")
    assert cost["hours"] > 20000 * min(measured["seconds"]) / 3600
    printed = capsys.readouterr().out
    assert "20,000 steps" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cost.json"]


def test_every_stage_of_the_patches_is_measured(tmp_path, shared_data_dir, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    stages = (
        "data.stages=[{start_step:0,patch_size:16,batch_size:2},{start_step:10,patch_size:24,batch_size:1}]"
    )
    output = tmp_path / "cost.json"
    assert main(["bench", *TINY, stages, "val_batches=0", f"output={output}"]) == 0
    cost = json.loads(output.read_text())
    assert [(s["patch_size"], s["batch_size"]) for s in cost["stages"]] == [(16, 2), (24, 1)]
    assert cost["validation"] is None


def test_of_several_processes_one_is_measured_and_reported(
    shared_data_dir, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setenv("RESTORA_DATA", str(shared_data_dir))
    output = tmp_path / "cost.json"
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    assert main(["bench", *TINY, *two, "compile=false", f"output={output}"]) == 0
    cost = json.loads(output.read_text())
    (measured,) = cost["stages"]
    assert (cost["processes"], measured["batch_size"]) == (2, 1)
    assert measured["samples_per_second"] == pytest.approx(3 / sum(measured["seconds"]))
    printed = capsys.readouterr().out
    assert "one of 2 processes" in printed
    assert "at least" in printed


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1),
        (["trainer.devices=4", "trainer.num_nodes=2"], 8),
        (["trainer.devices=[0,1,3]"], 3),
        (["trainer.devices='0,1'"], 2),
        (["trainer=ddp", "trainer.accelerator=cpu"], 1),
        (["trainer=multi_node", "trainer.devices=8"], 16),
    ],
    ids=str,
)
@pytest.mark.slow
def test_processes_are_read_from_the_trainer(overrides: list[str], expected: int) -> None:
    assert processes_of(compose("train", overrides)) == expected


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["steps=1"], "steps must be a number of 2 or more"),
        (["warm_up=x"], "warm_up must be a number of 1 or more"),
        (["-m"], "bench --help"),
        (["trainer.devices=2", "data.batch_size=3"], "set a multiple of 2"),
        (["trainer.max_steps=-1"], "trainer.max_time"),
        (["network.channel=3"], "network.channels"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_said_with_the_fix(words: list[str], fix: str, capsys) -> None:
    assert main(["bench", *words]) == 2
    assert fix in capsys.readouterr().err


def test_files_that_are_left_out_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("restora.data.module")
    with bench._named_once():
        for count in (1, 1, 2):
            logger.warning("%d files are left out", count)
    logger.warning("%d files are left out", 1)
    assert [record.args for record in caplog.records] == [(1,), (2,), (1,)]


def test_the_help_says_what_is_measured_without_an_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Without an experiment" in shown
    assert max(map(len, shown.splitlines())) <= 80
