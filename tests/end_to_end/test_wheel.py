"""The wheel alone, in a clean environment, run from another directory: configuration, experiments and
commands are in it."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def run(words: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], repository)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it. Its dependencies are those of this environment, whose own
    (editable) restora stays out: `.pth` files in a folder that a `.pth` file names are not read."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder)
    python = folder / "bin" / "python"
    words = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    run([sys.executable, "-m", "pip", *words], folder)
    site = Path(
        run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_every_configuration_file_is_in_it(wheel: Path, repository: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for group in ("conf", "experiments"):
        for path in (repository / group).rglob("*.yaml"):
            assert f"restora/{path.relative_to(repository)}" in inside


def test_its_types_are_declared(wheel: Path, clean: Path, tmp_path: Path) -> None:
    assert "restora/py.typed" in zipfile.ZipFile(wheel).namelist()
    (tmp_path / "own.py").write_text(
        "from restora import Restorer\nreveal_type(Restorer.load('model').scale)\n"
    )
    read = "".join(
        f"[mypy-{name}]\nfollow_imports = silent\n" for name in ("restora", "restora.artifact.restorer")
    )
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nfollow_imports = skip\n{read}")
    words = [sys.executable, "-m", "mypy", "--python-executable", str(clean / "python"), "own.py"]
    assert 'Revealed type is "int"' in run(words, tmp_path).replace("builtins.", "")


TRAIN_LIST_AND_RESTORE = """
import restora
from restora.cli import main

print(restora.__file__)
train = ["train", "experiments=quickstart/dncnn", "debug=fast", "logger.mode=disabled", "hydra.run.dir=out"]
assert main(train) == 0
assert main(["networks", "dncnn*", "--time", "none"]) == 0
assert main(["restore", "zoo:denoise", "photo.png", "out.png", "--sigma", "25"]) == 0
model = ["model=zoo:photo", "benchmark=denoise", "benchmark.root=.", "benchmark.sigma=25"]
assert main(["evaluate", *model, "metrics=[psnr]", "output=figures"]) == 0
"""


def test_it_trains_lists_and_restores_from_another_directory(
    clean: Path, tmp_path: Path, shared_data_dir: Path
) -> None:
    Image.fromarray(np.full((20, 24, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    words = [str(clean / "python"), "-c", TRAIN_LIST_AND_RESTORE]
    where, said = run(words, tmp_path, RESTORA_DATA=str(shared_data_dir)).split("\n", 1)
    assert str(clean.parent) in where
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"
    assert "dncnn_small" in said.partition("MACs")[2]
    assert np.abs(np.asarray(Image.open(tmp_path / "out.png"), int) - 90).max() <= 3


def test_its_command_lists_the_models_that_it_brings(wheel: Path, clean: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size < 10e6
    listed = json.loads(run([str(clean / "restora"), "zoo", "--json"], tmp_path))
    assert {"denoise", "half_minute"} <= {model["name"] for model in listed}
