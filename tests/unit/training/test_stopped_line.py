"""What a stopped run says in its last line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from restora.run_state import PRUNED
from restora.sweeping import ending
from restora.sweeping.executor import Executor, Running, Slots
from restora.sweeping.plan import Job, Plan
from restora.training.run import _say_stopped


def stopped(folder: Path, *overrides: str) -> None:
    info = SimpleNamespace(folder=folder, command="", overrides=list(overrides))
    record: Any = SimpleNamespace(info=info)
    _say_stopped(record)


def test_the_command_has_what_only_the_user_may_name(tmp_path: Path, capsys: Any) -> None:
    """Classes that are not registered, as `+callbacks.x._target_=my.Callback`."""
    words = ("seed=1", "+callbacks.mine._target_=my.Callback", "+callbacks.last._target_=last_checkpoint")
    stopped(tmp_path, *words)
    said = capsys.readouterr().err
    resume = f"resume with: restora train resume={tmp_path} +callbacks.mine._target_=my.Callback\n"
    assert said == f"stopped before its first checkpoint; {resume}"


def test_a_pruned_job_says_why_instead_of_how_to_resume_it(tmp_path: Path, capsys: Any) -> None:
    class Signals(Executor):
        def _work(self, source: Any) -> None: ...

        def _launch(self, running: Running, *, again: bool) -> None: ...

        def _end(self, running: Running, number: int) -> None:
            stopped(folder)

    folder, job = tmp_path / "0_x", Job(0, "0_x", "x", [])
    folder.mkdir()
    plan = Plan(folder=tmp_path, command="", overrides=[], cwd="/", settings={})
    teller: Any = SimpleNamespace(poll=lambda _: None)
    source: Any = SimpleNamespace(verdict=lambda _: "median pruner: 20.00 dB after 50%")
    Signals(plan, Slots(), teller, running={"0_x": Running(job, 0, handle=1)})._look(source)
    said = capsys.readouterr().err
    assert said == "stopped before its first checkpoint: median pruner: 20.00 dB after 50%\n"
    ending.pruned(folder, "median pruner")
    assert not (folder / PRUNED).exists()
