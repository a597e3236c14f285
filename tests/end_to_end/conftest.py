"""What tests of photos share."""

from pathlib import Path

import pytest
from identity_model import identity_model


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose output is its input."""
    return identity_model(tmp_path_factory.mktemp("models") / "identity")
