"""What cannot be measured where `make bench` runs has a row that says so."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from warm_start import run_code

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
GPU_TARGETS = {
    **{
        f"GPU: {part}, {name}": ">= 2 x spandrel"
        for name in ("nafnet", "restormer", "dncnn", "swinir", "rcan", "rrdbnet")
        for part in ("training step", "inference")
    },
    "GPU: step of dncnn_color": "<= 2 x the limit",
    "GPU: step of unet": "<= 2 x the limit",
    "GPU: step of NAFNet-32, 32x256²": "<= 20 ms",
    "GPU: share of degradation, second order": "<= 5%",
    "GPU: share of degradation, noise": "<= 1%",
    "GPU: share of waiting for data": "<= 2%",
    "GPU: from nothing to 29.23 dB, DnCNN": "<= 10 min",
    "GPU: NAFNet past 29.23 dB in the same time": "<= 10 min",
}


RUN = "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv.pop(0)); "
RUN += "runpy.run_path(sys.argv[0], run_name='__main__')"
OUR_PATH = os.pathsep.join(entry for entry in sys.path if "peers" not in entry)


def rows(script: str, tmp_path: Path) -> dict[str, dict]:
    """The rows of one benchmark by what they measure."""
    file = tmp_path / f"{script}.json"
    words = [BENCHMARKS, BENCHMARKS / script, "--rows", file]
    done = run_code(RUN, *words, PYTHONPATH=OUR_PATH)
    assert done.returncode == 0, done.stdout
    return {row["what"]: row for row in json.loads(file.read_text())}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_row_of_it_says_so_and_without_photos_the_minutes_do(tmp_path: Path) -> None:
    made, minutes = rows("training_gpu.py", tmp_path), rows("to_bm3d.py", tmp_path)
    made |= {what: row for what, row in minutes.items() if what.startswith("GPU")}
    assert {what: row["target"] for what, row in made.items()} == GPU_TARGETS
    assert {row["measured"] for row in made.values()} == {"not measured: no CUDA device"}
    assert all(row["met"] is None for row in made.values())
    assert sum("needs photos" in row["measured"] for row in minutes.values()) >= 2


@pytest.mark.parametrize(
    ("script", "arguments", "peer"),
    [
        ("networks.py", ["--only", "rcan", "--threads", "1"], "spandrel is not installed"),
        ("second_order.py", ["--batch", "1", "--size", "32"], "basicsr is not installed"),
    ],
)
def test_a_missing_peer_is_said(script: str, arguments: list[str], peer: str, tmp_path: Path) -> None:
    """In an environment that has no folder of peers; its processes are forked, to be as bare."""
    file = tmp_path / "rows.json"
    bare = f"import multiprocessing, sys; sys.prefix = {str(tmp_path)!r}; fork = multiprocessing.get_context"
    bare += f"('fork'); multiprocessing.get_context = lambda _: fork; {RUN}"
    words = [BENCHMARKS, BENCHMARKS / script, *arguments, "--rows", file]
    done = run_code(bare, *words, PYTHONPATH=OUR_PATH)
    assert done.returncode == 0, done.stdout
    made = {row["what"]: row for row in json.loads(file.read_text())}
    assert made
    for row in made.values():
        assert row["measured"].startswith("not measured: ")
        assert peer in row["measured"]
        assert row["target"]
        assert row["met"] is None


def test_parts_that_do_not_exist_are_refused_with_the_list() -> None:
    done = run_code(RUN, BENCHMARKS, BENCHMARKS / "networks.py", "--parts", "step,backward")
    assert done.returncode == 2
    assert "--parts is of step, inference, got backward" in done.stdout
