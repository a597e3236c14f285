"""The command that a job of a sweep records, typed into a shell, trains the same weights."""

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import torch
from tiny_runs import DNCNN, UNLOGGED
from warm_start import shell_words

SMALL = [
    *DNCNN[:2],
    *UNLOGGED,
    "network.channels=4,8",
    "schedule@family.schedule=constant",
    "name='it is (a) test'",
    "logger.tags=[x,y z]",
    "data.steps_per_epoch=9",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
]


def shell(command: str, folder: Path, data: Path) -> None:
    """As a person types it: by a POSIX shell, with `restora` on the path."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    program = tools / "restora"
    program.write_text(f'#!/bin/sh\nexec {shell_words()} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "RESTORA_DATA": str(data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def record(run: Path) -> dict[str, Any]:
    content = json.loads((run / "run.json").read_text())
    assert isinstance(content, dict)
    return content


def settings(run: Path) -> Any:
    """Without the places that the run wrote to, and what it was resumed from."""
    config = record(run)["config"]
    own = config["run_dir"]
    plain = {key: value for key, value in config.items() if key not in ("run_dir", "resume")}
    return json.loads(json.dumps(plain).replace(own, "RUN"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)
    state = checkpoint["state_dict"]
    assert isinstance(state, dict)
    return state


def test_a_resumed_job_of_a_sweep_is_repeated_by_its_command(tmp_path: Path, shared_data_dir: Path) -> None:
    shell(shlex.join(["restora", "train", "-m", *SMALL, "hydra.sweep.dir=sweep"]), tmp_path, shared_data_dir)
    first, job = sorted(path.parent for path in tmp_path.glob("sweep/*/run.json"))
    place = record(job)["sweep"]
    assert (place["job"], record(first)["sweep"]["job"]) == (1, 0)
    shell(shlex.join(["restora", "train", f"resume={job}", "trainer.max_steps=6"]), tmp_path, shared_data_dir)
    assert record(job)["sweep"] == place
    assert record(job)["cost"]["steps"] == 6

    shell(record(job)["command"], tmp_path, shared_data_dir)
    (again,) = (path.parent for path in tmp_path.glob("outputs/**/run.json"))
    assert settings(again) == settings(job)
    assert settings(again)["network"]["channels"] == 8
    assert record(again)["sweep"] is None
    assert record(again)["command"] == record(job)["command"]
    ours, theirs = weights(job), weights(again)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
