"""The arguments of a part's constructor with their defaults, as plain values.

Note: the parts of this package are read from their source text, because importing one imports torch, and a
configuration is composed in a fifth of that time. If a default is no plain value there, the class is imported
and inspected.
"""

import ast
import functools
import inspect
import re
from pathlib import Path
from typing import Any

from restora import registry

MISSING = "???"
"""The value of an argument without a default, as in a configuration."""


def defaults(kind: str, name: str) -> dict[str, Any]:
    """Argument -> default of the constructor of the part `name`, in order. Raises UnknownPart."""
    path = own_parts(kind).get(name)
    read = None if path is None else _read(path, kind, name)
    if read is not None:
        return dict(read)
    made = registry.find(kind, name)
    parameters = list(inspect.signature(made).parameters.values())
    if registry.is_schedule(made, kind):
        parameters = [p for p in parameters if p.default is not inspect.Parameter.empty]
    return {
        p.name: MISSING if p.default is inspect.Parameter.empty else _plain(p.default)
        for p in parameters
        if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }


@functools.cache
def own_parts(kind: str) -> dict[str, Path]:
    """Name -> file of this package's parts of a kind, found by their `@register` lines."""
    found: dict[str, Path] = {}
    pattern = re.compile(rf'^@register\("{kind}", "(\w+)"\)$', re.MULTILINE)
    for package in registry.PACKAGES.get(kind, ()):
        place = Path(__file__).parents[1].joinpath(*package.split(".")[1:])
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for path in files:
            for name in pattern.findall(path.read_text(encoding="utf-8")):
                found[name] = path
    return found


@functools.cache
def _read(path: Path, kind: str, name: str) -> dict[str, Any] | None:
    """The constructor's defaults from the source text; None if it is inherited or a default is not plain."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and any(_registers(d, kind, name) for d in node.decorator_list):
            made = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
            try:
                return _keywords(made[0].args) if made else None
            except ValueError:
                return None
    return None


def _registers(decorator: ast.expr, kind: str, name: str) -> bool:
    return isinstance(decorator, ast.Call) and [
        a.value for a in decorator.args if isinstance(a, ast.Constant)
    ] == [kind, name]


def _keywords(arguments: ast.arguments) -> dict[str, Any]:
    """Argument -> default. Raises ValueError for an expression as default and for positional arguments."""
    if len(arguments.args) > 1 or arguments.vararg or arguments.kwarg:
        raise ValueError("not keywords alone")
    return {
        argument.arg: MISSING if default is None else _plain(ast.literal_eval(default))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
