"""Where torch.compile cannot run, training says so once and goes on."""

from pathlib import Path

from warm_start import run_code

TWICE = """
import os, sys, torch
from torch._inductor import config
from restora.cli import main

words = sys.argv[1:]
print("= the compiler that CXX names")
config.cpp.cxx = (None, os.environ["CXX"])  # what torch makes of it as it is loaded
assert main(words) == 0
print("= a compiler on the path", flush=True)
config.cpp.cxx, os.environ["PATH"] = (None, "g++"), os.path.dirname(os.environ["CXX"])
torch._dynamo.reset()
assert main(words) == 0
"""


def test_without_a_compiler_training_goes_on_uncompiled(tmp_path: Path, shared_data_dir: Path) -> None:
    (tmp_path / "nothing-here").mkdir()
    words = ["train", "network=nafnet_small", "family=nafnet", "debug=fast", "compile=true"]
    places = {"CXX": str(tmp_path / "nothing-here" / "g++"), "RESTORA_DATA": str(shared_data_dir)}
    done = run_code(TWICE, *words, "logger.mode=disabled", "leakage.check=false", cwd=tmp_path, **places)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    named, on_path = done.stdout.partition("= a compiler on the path")[::2]
    for said, reason in ((named, "nothing-here"), (on_path, "C++ compiler")):
        (line,) = [line for line in said.splitlines() if "torch.compile" in line]
        assert line.endswith("training continues uncompiled"), line
        assert reason in line
