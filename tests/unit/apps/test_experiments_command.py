"""`restora experiments` lists what the files say."""

import json
import re
from pathlib import Path

import pytest

from restora import registry
from restora.apps.experiments import cost_of, experiments, machine_of, read
from restora.cli import main
from restora.config import compose, options


def test_every_experiment_is_listed_under_its_task_with_machine_and_cost(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in options("experiments"):
        if name != "adhoc":
            (line,) = [line for line in lines if line.split()[:1] == [name]]
            assert " CPU" in line or " GPU" in line
            assert re.search(r"steps|\d ?(s|min|h)$", line.rstrip())
    assert lines.index("denoise") < lines.index("super-resolution")


def test_a_task_can_be_asked_for(capsys) -> None:
    assert main(["experiments", "jpeg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {item["task"] for item in found} == {"jpeg"}
    assert {"name", "machine", "cost", "about"} <= set(found[0])
    assert main(["experiments", "dewarp"]) == 2
    assert "choose a task of colourise, deblur, denoise" in capsys.readouterr().err


def test_those_of_the_users_own_are_listed_with_what_they_say(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "experiments").mkdir()
    text = "# @package _global_\n# Mine. Second sentence.\n# cost: a coffee\ntask: derain\nseed: 3\n"
    (tmp_path / "experiments" / "mine.yaml").write_text(text)
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    text += "variants:\n  # Grey. As mine.\n  # machine: one GPU\n  grey: {seed: 4}\n"
    (tmp_path / "experiments" / "_shared.yaml").write_text(text.replace("grey", "smaller"))
    found = {item.name: item for item in experiments()}
    mine = found["mine"]
    assert (mine.task, mine.machine, mine.cost, mine.about) == ("derain", "", "a coffee", "Mine")
    assert read("mine", tmp_path / "experiments" / "mine.yaml") == mine
    smaller = found["smaller"]
    assert (smaller.task, smaller.machine, smaller.cost, smaller.about) == ("derain", "one GPU", "", "Grey")
    assert "_shared" not in found


@pytest.mark.parametrize(
    ("overrides", "cost"),
    [
        # 3 passes of 9 (12 + 16 + 12) weights at 16 x 16 pixels, 2 patches, 10 steps
        ([], "10 steps, 5.53M MACs"),
        (["trainer.accumulate_grad_batches=2"], "20 steps, 11.1M MACs"),
        (
            [
                "data.stages=[{start_step:0,patch_size:16,batch_size:2},{start_step:5,patch_size:32,batch_size:2}]"
            ],
            "10 steps, 13.8M MACs",
        ),
        (
            [
                "data.stages=[{start_step:0,patch_size:16,batch_size:2},{start_step:5,patch_size:32,batch_size:2}]",
                "trainer.accumulate_grad_batches=2",
            ],
            "20 steps, 27.6M MACs",
        ),
        (["trainer.max_time=90s"], "1min30s"),
    ],
    ids=str,
)
@pytest.mark.slow
def test_the_cost_is_that_of_the_whole_recipe(overrides: list[str], cost: str) -> None:
    tiny = ["network=dncnn_small", "network.in_channels=3", "network.channels=4", "network.depth=3"]
    tiny += ["network.batch_norm=false", "data.patch_size=16", "data.batch_size=2", "trainer.max_steps=10"]
    assert cost_of(compose("train", [*tiny, *overrides])) == cost


def test_the_machine_is_the_trainers() -> None:
    machines = [machine_of(compose("train", [f"trainer={name}"])) for name in ("cpu", "gpu", "ddp")]
    assert machines == ["one CPU", "one GPU", "several GPUs"]
