"""Operators of torchvision are declared where it brings none, and only there: twice, and torch ends."""

import importlib.util
import runpy
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.mark.parametrize(
    ("brings", "declared"),
    [("operators that fit", []), ("operators of another torch", ["nms", "qnms"]), ("none", ["nms", "qnms"])],
)
def test_operators_are_declared_where_there_are_none(
    brings: str, declared: list[str], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    class Library:
        def __init__(self, *_: Any) -> None: ...

        def define(self, schema: str) -> None:
            found.append(schema.partition("(")[0])

    def load(path: Path) -> None:
        assert path.name == "_C.so"
        if brings != "operators that fit":
            raise OSError("undefined symbol")

    (tmp_path / "__init__.py").touch()
    if brings != "none":
        (tmp_path / "_C.so").touch()
    spec = ModuleSpec("torchvision", None, origin=str(tmp_path / "__init__.py"))
    peers = runpy.run_path(str(repository / "benchmarks" / "peers.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(torch.ops, "load_library", load)
    for _ in range(2):
        peers["declare_operators"]()
    assert found == declared


def test_without_torchvision_there_is_nothing_to_declare(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = runpy.run_path(str(repository / "benchmarks" / "peers.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.library, "Library", None)
    peers["declare_operators"]()
