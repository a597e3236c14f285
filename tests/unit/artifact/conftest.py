"""A run and its model folder in every format, exported once for all that look at it."""

from pathlib import Path

import pytest
from run_folders import write_run

from restora.artifact.checkpoint import locate
from restora.artifact.export import export_model
from restora.artifact.formats import FORMATS


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "job")


@pytest.fixture(scope="session")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In each format whose packages are installed."""
    folder = tmp_path_factory.mktemp("models") / "model"
    export_model(locate(run), folder, wanted=[name for name, made in FORMATS.items() if not made.missing])
    return folder
