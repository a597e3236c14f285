"""The rows of benchmarks/gpu.py: the device's own time, once, and no row for a way that was cut short."""

import os
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import ROOT, benchmark
from torch.autograd import DeviceType


@pytest.fixture(scope="module")
def gpu() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield benchmark("gpu")


def options(path: Path, **other: Any) -> Namespace:
    return Namespace(rows_file=path / "rows", tiny=False, traces=None, rounds=1, **other)


def test_time_of_the_device_is_counted_once(gpu: ModuleType) -> None:
    """Torch gives a call of the host, and an annotation, the time of the kernels below it."""
    call = Namespace(device_type=DeviceType.CPU, is_user_annotation=False)
    kernel = Namespace(device_type=DeviceType.CUDA, is_user_annotation=False)
    annotation = Namespace(device_type=DeviceType.CUDA, is_user_annotation=True)
    assert [event for event in (call, kernel, annotation) if gpu.is_of_the_device(event)] == [kernel]


@pytest.mark.parametrize(("left", "again"), [(60.0, False), (9.0, True), (1.0, True)])
def test_a_way_that_the_end_cuts_short_is_measured_again(
    left: float, again: bool, gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str], *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    given = options(tmp_path, until=time.time() + left)
    gpu.row("dncnn", "restora bf16 eager", 40, given)
    assert ("dncnn, restora bf16 eager: " not in gpu.measured(given)) is again


def test_a_training_that_was_cut_short_is_not_scored(tmp_path: Path) -> None:
    """The same command trains on, and a score of before would stay in its rows."""
    python = tmp_path / "python"
    script = '#!/bin/sh\necho "$3"\ntest "$3" != train || test -e {trained}\n'
    python.write_text(script.format(trained=tmp_path / "trained"))
    python.chmod(0o755)
    given = {"PYTHON": python, "OUT": tmp_path / "out", "PHOTOS": tmp_path, "TEST": tmp_path}
    others = {"PATH": os.environ["PATH"], "TINY": "1", "DNCNN_SECONDS": "1"}

    def rows() -> list[str]:
        subprocess.run(
            ["bash", ROOT / "benchmarks" / "gpu.sh"],
            env={name: str(value) for name, value in {**given, **others}.items()},
            check=True,
            capture_output=True,
        )
        return (tmp_path / "out" / "rows").read_text().splitlines()

    assert [row.partition(",")[0] for row in rows()[-2:]] == ["to_29_23: exit code 1", "bsd68: not measured"]
    (tmp_path / "trained").touch()
    assert [row.partition(",")[0] for row in rows()[-4:]] == [
        "train",
        "to_29_23: exit code 0",
        "evaluate",
        "bsd68: exit code 0",
    ]
