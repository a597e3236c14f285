"""The import arrows of ARCHITECTURE.md, read from the code."""

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "restora"

GROUND = {
    "types",
    "registry",
    "arguments",
    "vocabulary",
    "files",
    "words",
    "allocator",
    "keyed",
    "image",
    "monitor",
    "run_state",
    "strangers",
    "redaction",
    "connection",
    "processes",
    "walking",
}
"""What everybody may know, and what knows nothing of ours but itself."""
ALLOWED = {
    **{name: set() for name in GROUND - {"registry", "monitor", "run_state"}},
    "keyed": {"kernels"},
    "monitor": {"words"},
    "run_state": {"files"},
    "registry": {"arguments"},
    "config": {"registry", "arguments", "composing", "monitor"},
    "composing": {"vocabulary", "registry"},
    "cli": {"registry", "redaction"},
    "kernels": set(),
    "photos": {"walking"},
    "degradations": GROUND,
    "networks": GROUND | {"kernels"},
    "losses": GROUND,
    "metrics": GROUND,
    "data": GROUND | {"photos", "degradations"},
    "objectives": GROUND | {"networks", "losses"},
    "families": GROUND | {"networks", "losses", "objectives", "artifact", "evaluation"},
    "zoo": set(),
    "artifact": GROUND | {"photos", "networks", "degradations", "zoo"},
    "operators": GROUND,
    "fitting": GROUND | {"photos", "networks", "operators", "artifact"},
    "video": GROUND | {"photos", "artifact"},
    "evaluation": GROUND
    | {"photos", "networks", "degradations", "metrics", "data", "artifact", "operators", "fitting"},
    "training": GROUND
    | {
        "config",
        "composing",
        "data",
        "photos",
        "degradations",
        "families",
        "networks",
        "evaluation",
        "objectives",
        "artifact",
    },
    "sweeping": GROUND | {"config", "composing", "networks", "training", "reporting"},
    "reporting": GROUND | {"photos", "data", "degradations", "metrics", "evaluation", "artifact"},
    "serving": GROUND | {"photos", "networks", "artifact"},
    "apps": GROUND
    | {
        "config",
        "composing",
        "data",
        "photos",
        "degradations",
        "networks",
        "evaluation",
        "artifact",
        "fitting",
        "operators",
        "metrics",
        "training",
        "sweeping",
        "reporting",
        "serving",
        "video",
        "zoo",
    },
}
HEAVY = {
    "lightning": {"data", "families", "training"},
    "hydra": {"config", "composing", "training", "sweeping", "apps"},
    "omegaconf": {
        "config",
        "composing",
        "training",
        "sweeping",
        "apps",
    },
    "wandb": {"training"},
}
ON_USE = {"kornia", "scipy", "torchmetrics", "onnx", "onnxruntime", "openvino", "spandrel", "av"}
"""Packages that take a tenth of a command's start or more, and that most commands do not use."""


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    return {name for node in ast.walk(tree(path)) for name in _names(node)}


def _names(node: ast.AST) -> list[str]:
    """The modules that a statement imports; none if it is no import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    own = layer(path)
    assert own in ALLOWED, f"{own} is not in the picture: add it to ARCHITECTURE.md and to ALLOWED"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "restora" and len(parts) > 1:
            assert parts[1] == own or parts[1] in ALLOWED[own], f"{own} may not import {name}"
        if parts[0] in HEAVY:
            assert own in HEAVY[parts[0]], f"{own} may not import {parts[0]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_packages_that_few_commands_use_are_imported_on_use(path: Path) -> None:
    on_import = {name for node in tree(path).body for name in _names(node)}
    early = {name for name in on_import if name.split(".")[0] in ON_USE}
    assert not early, f"{path.name} imports {', '.join(early)} for every command: import it where it is used"


def test_apps_do_not_know_training_except_those_that_train() -> None:
    for path in (SOURCE / "apps").rglob("*.py"):
        if path.name not in ("train.py", "bench.py"):
            assert not any(name.startswith("restora.training") for name in imports(path)), path.name


def test_the_command_table_names_functions_that_exist() -> None:
    from restora.cli import COMMANDS

    for target, _ in COMMANDS.values():
        module, _, function = target.partition(":")
        path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        body = tree(path).body
        assert any(isinstance(node, ast.FunctionDef) and node.name == function for node in body), target
