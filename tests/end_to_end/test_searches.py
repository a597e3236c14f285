"""A search of two objectives with pruning: what fails is recorded, equal points are answered, a kill loses
nothing."""

import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kill_sweep import command, hit, records, running, trials
from warm_start import start_typed as start

from restora.cli import main
from restora.sweeping.plan import read_plan

pytest.importorskip("optuna")
TRIALS = 6


def test_a_search_of_two_objectives_survives_a_kill(tmp_path: Path, shared_data_dir: Path) -> None:
    searched = ["network.channels=4,8", "family.optimizer.lr=1e-3,1e30", "sweep=random"]
    settings = {"trials": TRIALS, "objectives": "{val/psnr:max,macs_256:min}", "pruner": "median", "seed": 3}
    words = [*command(1), *searched, *(f"sweep.search.{key}={value}" for key, value in settings.items())]
    process = start(words, tmp_path, shared_data_dir)
    deadline = time.monotonic() + 120
    while not running(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    hit(process.pid, "tree", random.Random(1))
    process.wait()
    assert start(words, tmp_path, shared_data_dir).wait(timeout=240) == 0, (
        tmp_path / "output.txt"
    ).read_text()

    (path,) = tmp_path.rglob("sweep.json")
    made = trials(tmp_path)
    jobs = {record["folder"].name: record for record in records(tmp_path)}
    assert len(made) >= TRIALS
    assert {trial.state.name for trial in made} == {"COMPLETE", "FAIL"}
    assert len(jobs) <= 4 < TRIALS  # points that came again were answered
    for trial in made:
        if trial.state.name == "COMPLETE":
            record = jobs[trial.user_attrs["folder"]]
            assert trial.values == [record["metrics"]["best"]["val/psnr"], record["macs_256"]]
        else:
            assert "NonFinite" in trial.user_attrs["reason"]
    output = (tmp_path / "output.txt").read_text()
    assert "best" in output.rpartition("finished")[2]
    assert "macs_256" in output

    plan = json.loads(path.read_text())
    assert plan["settings"]["search"]["sampler"] == "random"
    assert not list(path.parent.glob("*.lock*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["family.optimizer.lr=interval(1e-4,1e-2)"], "add sweep=tpe"),
        (["sweep=tpe", "seed=1"], "keys with several values"),
        (["sweep=tpe", "seed=1,2", "sweep.search.objectives={test/psnr:max}"], "choose nothing"),
        (["sweep=tpe", "seed=1,2", "sweep.search.objectives={val/psnr:up}"], "one of max, min"),
        (
            ["sweep=tpe", "seed=1,2", "sweep.search.objectives={val/pnsr:max}"],
            "val/psnr, val/ssim, not val/pnsr",
        ),
        (["sweep=tpe", "seed=1,2", "sweep.search.objectives={val/niqe:min}"], "set monitor.metric"),
        (["sweep=gp", "seed=1,2", "sweep.search.sampler=grid"], "sampler must be one of tpe, gp"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_searched_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "network=dncnn_small", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_a_result_says_why(tmp_path: Path, shared_data_dir: Path) -> None:
    words = [*command(1), "family.optimizer.lr=interval(1e30,1e31)", "sweep=random", "sweep.search.trials=2"]
    assert start(words, tmp_path, shared_data_dir).wait(timeout=240) == 1
    output = (tmp_path / "output.txt").read_text()
    assert "no trial has a result: NonFinite" in output
    (path,) = tmp_path.rglob("sweep.json")
    plan = read_plan(path.parent)
    plan.jobs = plan.jobs[:1]  # as when the first one starts
    assert plan.expected == 2


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_the_first_points_are_spread(name: str) -> None:
    """Consecutive seeds of numpy's generators have nearly equal first draws."""
    from optuna import create_study
    from optuna.distributions import FloatDistribution

    from restora.sweeping.search import Settings, sampler

    settings = Settings(sampler=name, trials=8, objectives={"val/psnr": "max"})
    study, points = create_study(direction="maximize"), []
    for number in range(8):
        study.sampler = sampler(settings, number)
        points.append(study.ask({key: FloatDistribution(0, 1) for key in "ab"}).params)
    for key in "ab":
        drawn = sorted(point[key] for point in points)
        assert min(late - early for early, late in pairwise(drawn)) > 1e-3
        assert drawn[-1] - drawn[0] > 0.5


def test_distributions_follow_the_grammar() -> None:
    from restora.sweeping.space import space_of

    space, fixed = space_of(
        [
            "a=interval(1e-4,1)",
            "b=int(tag(log,interval(1,64)))",
            "c=range(2,9,3)",
            "d=x,y",
            "e=choice(1,2)",
            "f=5",
        ]
    )
    assert fixed == ["f=5"]
    kinds = {key: type(value).__name__.removesuffix("Distribution") for key, value in space.items()}
    assert kinds == {"a": "Float", "b": "Int", "c": "Int", "d": "Categorical", "e": "Categorical"}
    assert space["b"].log
    assert (space["c"].low, space["c"].high, space["c"].step) == (2, 8, 3)
    assert space["d"].choices == ("x", "y")


def test_what_a_killed_process_leaves_in_the_study_costs_nothing(tmp_path: Path) -> None:
    """Its lock, and the line that it was writing; the trial that it had asked for is there."""
    from optuna.distributions import FloatDistribution

    from restora.sweeping.search import JOURNAL, Settings, open_study

    settings = Settings(sampler="random", trials=3, objectives={"val/psnr": "max"})
    asked = open_study(tmp_path, settings).ask({"a": FloatDistribution(0, 1)})
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 6, "worker')
    began = time.monotonic()
    (found,) = open_study(tmp_path, settings).trials
    assert found.params == asked.params
    assert time.monotonic() - began < 10  # Optuna would wait 30 s for the lock


def test_points_that_were_chosen_again_are_counted(tmp_path: Path) -> None:
    from restora.sweeping.search import Search, Settings, open_study

    settings = Settings(sampler="random", trials=4, objectives={"val/psnr": "max"})
    study = open_study(tmp_path, settings)
    for folder in ("0_a", "1_a", "0_a", "0_a"):
        study.ask().set_user_attr("folder", folder)
    study.ask()  # killed before its job had a folder
    plan: Any = None
    assert Search(plan, settings, {}, [], [], study, None).repeated() == 2


@pytest.mark.parametrize(
    "other", [{"val/psnr": "min"}, {"val/ssim": "max"}, {"val/psnr": "max", "parameters": "min"}], ids=str
)
def test_a_study_goes_on_with_its_own_objectives_only(other: dict[str, str], tmp_path: Path) -> None:
    from restora.config import ConfigError
    from restora.sweeping.search import Settings, open_study

    open_study(tmp_path, Settings(sampler="random", trials=1, objectives={"val/psnr": "max"}))
    open_study(tmp_path, Settings(sampler="tpe", trials=3, objectives={"val/psnr": "max"}))
    with pytest.raises(ConfigError, match=r"other objectives \(val/psnr max\): name another folder"):
        open_study(tmp_path, Settings(sampler="random", trials=1, objectives=other))


def test_a_study_goes_on_with_values_that_it_can_compare_only(tmp_path: Path) -> None:
    from restora.config import ConfigError
    from restora.sweeping.search import Settings, open_study
    from restora.sweeping.space import check_space, space_of

    study = open_study(tmp_path, Settings(sampler="tpe", trials=1, objectives={"val/psnr": "max"}))
    study.ask(space_of(["loss=l1,mse", "family.optimizer.lr=interval(0.1,0.2)"])[0])
    check_space(study, space_of(["loss=l1,mse", "family.optimizer.lr=interval(0.1,0.9)"])[0], tmp_path)
    for words in (["network.width=4,8", "loss=l1,ssim"], ["family.optimizer.lr=0.1,0.2"]):
        with pytest.raises(ConfigError, match="from other values: name another folder"):
            check_space(study, space_of(words)[0], tmp_path)


@pytest.mark.parametrize("ends", [{"max_steps": 10}, {"max_steps": -1, "max_time": "2s"}], ids=str)
def test_jobs_that_fall_behind_are_pruned(tmp_path: Path, ends: dict[str, Any]) -> None:
    from restora.sweeping.search import Pruning, Settings

    settings = Settings(
        sampler="random", trials=9, objectives={"val/psnr": "max"}, pruner="median", startup=3
    )
    pruning = Pruning.of(settings)
    assert pruning is not None
    config = {"trainer": ends}
    for number, value in enumerate((30.0, 29.0, 28.0, 20.0, 31.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"step,seconds,val/psnr\n5,1,{value}\n")
        why = pruning.look(str(number), folder, config)
        assert (why is None) == (number != 3)
        assert why is None or why == "median pruner: 20.00 dB after 50% of the training"
        best = {"val/psnr": value}
        pruning.over(str(number), folder, "finished", {"metrics": {"best": best}, "config": config})


def test_the_metrics_of_a_job_are_read_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restora.sweeping import search

    read = []
    curve = search._curve
    monkeypatch.setattr(search, "_curve", lambda *given: (read.append(given), curve(*given))[1])
    settings = search.Settings(
        sampler="random", trials=9, objectives={"val/psnr": "max"}, pruner="median", startup=3
    )
    pruning = search.Pruning.of(settings)
    assert pruning is not None
    config = {"trainer": {"max_steps": 10}}
    for rows, times in (("", 0), ("step,seconds,val/psnr\n5,1,30\n", 1), ("9,2,31\n", 2)):
        if rows:
            with (tmp_path / "metrics.csv").open("a") as file:
                file.write(rows)
        for _ in range(3):
            pruning.look("job", tmp_path, config)
        assert len(read) == times
    assert list(pruning.trials["job"].study.trials[0].intermediate_values.values()) == [30.0, 31.0]
