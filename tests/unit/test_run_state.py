"""A folder belongs to the command that made it; a run that is trained is known as such."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from restora.data.locking import sole_process
from restora.run_state import LOCK, claim, is_locked, sole_run, status_of, this_process

HOLDER = """
import pathlib, sys
from restora.run_state import sole_run
with sole_run(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_each_command_gets_the_first_folder_that_is_free(tmp_path: Path) -> None:
    made = [claim(tmp_path / "new" / "run") for _ in range(3)]
    assert [folder.name for folder in made] == ["run", "run_2", "run_3"]
    made[1].rmdir()
    assert claim(tmp_path / "new" / "run") == made[1]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_trained_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refused)
    monkeypatch.setattr(fcntl, "flock", refused)
    with sole_run(tmp_path):
        assert (tmp_path / LOCK).exists()
    (tmp_path / LOCK).touch()  # a killed run leaves it behind
    assert not is_locked(tmp_path)
    with caplog.at_level(logging.WARNING), sole_process(tmp_path / "data" / "lock", doing="packing"):
        assert "cannot be locked" in caplog.text


def test_a_run_on_a_machine_with_another_time_is_alive_while_it_holds_its_lock(tmp_path: Path) -> None:
    process = {**this_process(), "host": "elsewhere", "heartbeat": "2020-01-01T00:00:00+00:00"}
    record = {"status": "running", "process": process}
    assert status_of(record, tmp_path) == "dead"
    with sole_run(tmp_path):  # this process's own lock says nothing of the other
        assert status_of(record, tmp_path) == "dead"
    holder = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert status_of(record, tmp_path) == "running"
        other.communicate("")


def test_the_lock_of_a_run_that_took_the_place_of_a_moved_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with sole_run(folder):
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / LOCK).write_text("process 7 on elsewhere\n")
    assert (folder / LOCK).exists()
