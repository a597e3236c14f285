"""A search that is resumed from its folder alone, which a stranger may have made, or a fault has damaged."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import DNCNN, TINY

from restora.cli import main
from restora.sweeping import command

pytest.importorskip("optuna")
SEARCH = ["sweep=random", "sweep.search.trials=2", "family.optimizer.lr=interval(1e-4,1e-2)"]
OBJECTIVE = {"val/psnr": "max"}


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sources of the searches that were started; the search in `search` has been stopped."""
    monkeypatch.chdir(tmp_path)
    sources: list[Any] = []
    monkeypatch.setattr(command, "run", lambda plan, source, **_: sources.append(source) or 143)
    assert main(["train", "-m", *DNCNN, *TINY, *SEARCH, "hydra.sweep.dir=search"]) == 143
    return sources


def test_it_goes_on_from_another_folder_with_the_same_points(
    searched: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = (tmp_path / "search" / "sweep.json").read_text()
    assert main(["sweep", str(tmp_path / "search"), "--resume"]) == 143
    first, again = searched
    assert (again.space, again.fixed, again.settings) == (first.space, first.fixed, first.settings)
    assert (tmp_path / "search" / "sweep.json").read_text() == before
    assert again.next().overrides[-1].startswith("family.optimizer.lr=")
    assert (tmp_path / "search" / "0_dncnn_small" / "run.json").exists()


def test_failed_trials_are_results(searched: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "search", "--retry-failed"]) == 2
    assert "a failed trial is a result of a search" in capsys.readouterr().err
    assert len(searched) == 1


@pytest.mark.parametrize(
    "word",
    [
        "+callbacks.more._target_=os.system",
        "+callbacks.more={_target_: os.system}",
        "plugins=[antigravity]",
        "callbacks.last.directory=/tmp,/var",
        "hydra.run.dir=/tmp",
        "name=${oc.env:HOME}",
        "resume=/tmp",
        "--config-dir=/tmp",
    ],
)
def test_overrides_of_a_stranger_are_refused(
    word: str, searched: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("search", "sweep.json")
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"overrides": [*plan["overrides"], word]}))
    assert main(["sweep", "search", "--resume"]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert "give its command again" in said
    assert len(searched) == 1


@pytest.mark.parametrize(
    ("executor", "options", "refused"),
    [
        ("slurm", {"error": "/home/user/.bashrc"}, "error"),
        ("ray", {"address": "ray://elsewhere:10001"}, "address"),
        ("ray", {"num_cpus": 2, "runtime_env": {"worker_process_setup_hook": "os.system"}}, "runtime_env"),
    ],
)
def test_options_that_reach_outside_are_refused(
    executor: str, options: dict[str, Any], refused: str, searched: list[Any], capsys: Any
) -> None:
    path = Path("search", "sweep.json")
    plan = json.loads(path.read_text())
    plan["settings"] |= {"executor": executor, "options": options}
    path.write_text(json.dumps(plan))
    assert main(["sweep", "search", "--resume"]) == 2
    assert f"the sweep sets sweep.options.{refused}: if you trust it" in capsys.readouterr().err
    assert len(searched) == 1


@pytest.mark.parametrize("how", ["garbage", "a line of garbage", "flipped", "another operation"])
def test_a_damaged_study_is_named_and_what_is_whole_counts(how: str, tmp_path: Path, capsys: Any) -> None:
    from optuna.distributions import FloatDistribution

    from restora.sweeping.search import JOURNAL, Settings, open_study

    settings = Settings(sampler="random", trials=3, objectives=OBJECTIVE)
    study, path = open_study(tmp_path, settings), tmp_path / JOURNAL
    for number in range(2):
        trial = study.ask({"a": FloatDistribution(0, 1)})
        study.tell(trial, float(number))
    lines = path.read_bytes().splitlines(keepends=True)
    middle = next(number for number, line in enumerate(lines) if b'"values"' in line) + 1
    damaged = {
        "garbage": random.Random(1).randbytes(300) + b"\n",
        "a line of garbage": b"".join([*lines[:middle], b"\xff\x00\n", *lines[middle:]]),
        "flipped": b"".join([*lines[:middle], b"{" + lines[middle], *lines[middle + 1 :]]),
        "another operation": b"".join([b"{}\n", *lines]),
    }[how]
    path.write_bytes(damaged)
    trials = open_study(tmp_path, settings).trials
    assert [trial.value for trial in trials] == ([0.0] if how in ("a line of garbage", "flipped") else [])
    assert f"{path} is damaged" in capsys.readouterr().err
    assert (tmp_path / f"{JOURNAL}.damaged").read_bytes() == damaged
    open_study(tmp_path, settings)
    assert capsys.readouterr().err == ""
