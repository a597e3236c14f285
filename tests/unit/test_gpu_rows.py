"""The rows of benchmarks/gpu.py: the device's own time, once, and no row for a way that was cut short."""

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
