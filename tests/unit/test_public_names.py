"""What `restora` gives in Python without naming a module, and what importing it costs."""

import subprocess
import sys

import pytest

import restora


def test_importing_it_imports_nothing_heavy() -> None:
    script = "import sys, restora; print(sorted({'torch', 'lightning', 'hydra', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_names_are_the_modules_own() -> None:
    from restora.artifact.restorer import Restorer
    from restora.artifact.sources import open_source

    assert restora.Restorer is Restorer
    assert restora.open_source is open_source
    assert set(restora.__all__) <= set(dir(restora))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'restora' has no attribute 'Restorator'"):
        restora.Restorator  # noqa: B018
