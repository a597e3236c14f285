"""The scripts of `benchmarks/`, which are no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def benchmark(name: str) -> ModuleType:
    """The module of a script; skips the test where there is no checkout."""
    path = ROOT / "benchmarks" / f"{name}.py"
    if not path.exists():
        pytest.skip("benchmarks come with a checkout")
    made = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules[made.name] = module
    made.loader.exec_module(module)
    return module
