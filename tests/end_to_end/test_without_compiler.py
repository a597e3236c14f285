"""Where torch.compile cannot run, training says so once and goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("missing", ["PATH", "CXX"])
def test_without_a_compiler_training_goes_on_uncompiled(
    missing: str, tmp_path: Path, shared_data_dir: Path
) -> None:
    nowhere = tmp_path / "nothing-here"
    nowhere.mkdir()
    value = str(nowhere) if missing == "PATH" else str(nowhere / "g++")
    environment = {**os.environ, "RESTORA_DATA": str(shared_data_dir), missing: value}
    if missing == "PATH":
        environment.pop("CXX", None)
    words = ["train", "network=nafnet_small", "family=nafnet", "debug=fast", "compile=true"]
    done = subprocess.run(
        [sys.executable, "-m", "restora", *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "torch.compile" in line]
    assert line.endswith("training goes on uncompiled"), line
    assert ("C++ compiler" if missing == "PATH" else "nothing-here") in line
