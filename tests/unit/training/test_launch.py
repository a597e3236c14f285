"""What becomes of a distributed run whose processes fail, as the first one finds it out."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from restora.training import launch
from restora.training.launch import ProcessFailed, Workers, cause_of, forget_failures, note_failure

CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2")


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    strategy = SimpleNamespace(cluster_environment=None)
    trainer: Any = SimpleNamespace(strategy=strategy, num_devices=3, num_nodes=1)
    said: list[ProcessFailed] = []
    made = Workers(trainer, folder=tmp_path, plugins=[], lost=said.append)
    made.said = said  # type: ignore[attr-defined]
    return made


def test_a_first_process_that_hangs_is_ended_and_the_cause_said(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the one that is gone is waited for in a call that never returns."""
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(launch, "_LOOKED_EVERY", 0.01)
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    workers.procs = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    workers.procs[1].kill()
    with pytest.raises(SystemExit):
        workers._watch()
    assert [error.summary for error in workers.said] == [
        "process 2: ended by SIGKILL, as the system does where memory runs out"
    ]
    assert all(process.poll() is not None for process in workers.procs)


def test_the_cause_is_the_failure_that_no_other_one_explains(tmp_path: Path) -> None:
    note_failure(tmp_path, 1, CLOSED)
    note_failure(tmp_path, 2, ZeroDivisionError("of its own"))
    cause = cause_of(CLOSED, tmp_path, None)
    assert isinstance(cause, ProcessFailed)
    assert cause.summary == "process 2: ZeroDivisionError: of its own"
    own = LookupError("here")
    assert cause_of(own, tmp_path, None) is own  # the first process itself has failed


def test_a_closed_connection_that_nobody_explains_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_NOTE_SECONDS", 0.1)
    note_failure(tmp_path, 2, ZeroDivisionError("of an earlier try"))
    forget_failures(tmp_path)
    assert cause_of(CLOSED, tmp_path, None) is CLOSED
