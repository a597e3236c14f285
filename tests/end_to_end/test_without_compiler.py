"""Where torch.compile cannot run, training says so once and goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_start import run_restora

WORDS = ["train", "network=nafnet_small", "family=nafnet", "debug=fast", "compile=true"]


@pytest.mark.parametrize("missing", ["PATH", "CXX"])
def test_without_a_compiler_training_goes_on_uncompiled(
    missing: str, tmp_path: Path, shared_data_dir: Path
) -> None:
    nowhere = tmp_path / "nothing-here"
    nowhere.mkdir()
    environment = {"RESTORA_DATA": str(shared_data_dir)}
    if missing == "PATH":
        done = run_restora(*WORDS, cwd=tmp_path, merged=True, PATH=str(nowhere), **environment)
    else:  # which torch reads when it is imported
        done = subprocess.run(
            [sys.executable, "-m", "restora", *WORDS],
            env={**os.environ, **environment, "CXX": str(nowhere / "g++")},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
    said = done.stdout
    assert done.returncode == 0, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "torch.compile" in line]
    assert line.endswith("training goes on uncompiled"), line
    assert ("C++ compiler" if missing == "PATH" else "nothing-here") in line
