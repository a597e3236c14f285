"""Sweeps through a real SLURM on this machine: `make test-slurm` sets it up, and kills one of 20 jobs."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from kill_sweep import command, elements, output, records, release, start

from restora.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SLURM_CONF" not in os.environ or shutil.which("sbatch") is None,
        reason="make test-slurm sets SLURM up",
    ),
]
SLURM = ["sweep.executor=slurm", "hydra.sweep.dir=sweep"]


def slowly(jobs: int, seconds: float, *more: str) -> list[str]:
    words = [*command(jobs, *SLURM, f"+callbacks.slow.seconds={seconds}", *more)]
    words.remove("+callbacks.slow.seconds=0.1")
    return words


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 600
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert path.exists()


def test_two_tasks_requeued_in_mid_run_go_on_in_the_same_run_of_wandb(
    tmp_path: Path, shared_data_dir: Path
) -> None:
    """The command leaves at once; then the job is requeued; then the same command waits for its end."""
    devices = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    words = slowly(1, 1.0, *devices, "compile=false", "channels_last=false", "logger.mode=offline")
    words.remove("logger.mode=disabled")
    assert start([*words, "sweep.detach=true"], tmp_path, shared_data_dir).wait(timeout=600) == 0
    assert "continue without this command" in output(tmp_path)
    job = tmp_path / "sweep" / "0_dncnn_small"
    wait_for(job / "checkpoints" / "last.ckpt")
    (number,) = elements()
    shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=True)
    assert "NumTasks=2" in shown.stdout
    subprocess.run(["scontrol", "requeue", number], check=True)
    assert release(start(words, tmp_path, shared_data_dir)) == 0, output(tmp_path)
    (record,) = records(tmp_path)
    assert (record["status"], record["cost"]["steps"]) == ("finished", 12)
    assert "the run resumes after step" in (job / "train.log").read_text()
    parts = [path.name for path in (job / "wandb").glob("offline-run-*/run-*.wandb")]
    assert parts == [f"run-{record['wandb']['id']}.wandb"] * 2


def test_a_job_saves_before_its_time_limit_and_is_requeued(tmp_path: Path, shared_data_dir: Path) -> None:
    """SLURM signals up to a minute earlier than it is asked to: 45 to 105 s after the start, and steps take
    125 s. An attempt that a loaded machine leaves less than its start is made anew."""
    limit = ["+sweep.options.time=2", "+sweep.options.signal=B:USR1@15"]
    words = slowly(1, 5.0, *limit, "trainer.max_steps=25", "sweep.retries=5")
    assert release(start(words, tmp_path, shared_data_dir)) == 0, output(tmp_path)
    (record,) = records(tmp_path)
    assert (record["status"], record["cost"]["steps"]) == ("finished", 25)
    assert "stopped at step" in (record["folder"] / "train.log").read_text()


def test_jobs_that_are_left_alone_are_stopped_by_their_folder(
    tmp_path: Path, shared_data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = slowly(3, 1.0, "sweep.detach=true", "sweep.slots=1")
    words.remove("sweep.slots=2")
    assert start(words, tmp_path, shared_data_dir).wait(timeout=600) == 0
    wait_for(tmp_path / "sweep" / "0_dncnn_small" / "checkpoints" / "last.ckpt")
    assert len(elements()) == 1  # of three
    assert main(["sweep", str(tmp_path / "sweep"), "--stop"]) == 0
    assert "2 queued, 1 stopped" in capsys.readouterr().out
    assert elements("pending,running") == []


def test_a_time_limit_that_ends_before_the_first_step_is_not_tried_for_ever(
    tmp_path: Path, shared_data_dir: Path
) -> None:
    """The job is asked to save 0 to 30 s after its start, and a step takes an hour."""
    limit = ["+sweep.options.time=1", "+sweep.options.signal=B:USR1@45"]
    assert start(slowly(1, 3600.0, *limit), tmp_path, shared_data_dir).wait(timeout=600) == 1
    (record,) = records(tmp_path)
    assert record["status"] in ("stopped", "failed")
    assert "REQUEUE" not in (tmp_path / "sweep" / "slurm.log").read_text()


def test_a_job_on_two_nodes_is_one_run(tmp_path: Path, shared_data_dir: Path) -> None:
    nodes = ["trainer=multi_node", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2"]
    words = [*command(1, *SLURM, *nodes), "trainer.precision=32-true", "compile=false", "channels_last=false"]
    assert release(start(words, tmp_path, shared_data_dir)) == 0, output(tmp_path)
    (record,) = records(tmp_path)
    assert (record["status"], record["cost"]["steps"]) == ("finished", 12)
    log = (tmp_path / "sweep" / "slurm.log").read_text() + (record["folder"] / "train.log").read_text()
    assert "MEMBER: 2/2" in log
    shown = subprocess.run(["scontrol", "show", "jobs"], capture_output=True, text=True, check=True).stdout
    assert "NodeList=restora-node[1-2]" in shown
