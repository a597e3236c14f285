"""What unit tests of several rooms share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """Runs a family for a few steps on ready batches; its trainer comes back."""
    from functools import partial

    from ready_batches import fit_on_ready_batches

    return partial(fit_on_ready_batches, folder=tmp_path)
