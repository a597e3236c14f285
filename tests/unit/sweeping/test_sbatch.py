"""What sbatch is asked for, without a SLURM; `make test-slurm` asks a real one."""

from pathlib import Path
from typing import Any

import pytest

from restora.sweeping.executor import Running, Slots
from restora.sweeping.plan import Job, Plan
from restora.sweeping.slurm import Needs, Slurm

NEEDS = Needs(nodes=1, tasks=1, gpus=False, threads=None, block=0)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("50%j", "50%%j"),
        ("a\\b", "a\\\\b"),
        ("a\\b %j", "a\\\\b %j"),  # after a backslash sbatch knows no patterns
        ("sweep, x=1", "sweep, x=1"),
    ],
)
def test_the_folder_of_a_sweep_is_no_pattern_of_sbatch(name: str, asked: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"executor": "slurm"}
    plan = Plan(folder=tmp_path / name, command="", overrides=[], cwd="/", settings=settings)
    teller: Any = None
    words = Slurm(plan, Slots(), teller)._sbatch(NEEDS, [Running(Job(0, "0_x", "x", []), 0)])
    assert f"--output={tmp_path}/{asked}/slurm.log" in words
