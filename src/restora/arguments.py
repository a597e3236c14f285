"""Checks arguments against the signature of a function or constructor before the call.

A user's settings reach constructors as plain values and built parts. A key that the constructor does not have
and a value that is not of the annotated type are refused here, with the key, the value and the wanted type,
instead of in the middle of a training step.

Note: keyword arguments that a constructor passes on (`**options`) are those of its parents.
"""

import collections.abc as abc
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "names", Path: "paths"}
_LONGEST = 60
_MOST = 20
"""The most parameters that the message about an unknown one lists."""


class WrongArgument(ValueError):
    """A key that no parameter has, or a value of a wrong type; `key` is its whole path."""

    def __init__(self, message: str, *, key: str, value: Any = None, part: bool = False) -> None:
        super().__init__(message)
        self.key, self.value = key, value
        self.part = part
        """Whether an object is wanted and a plain value was given."""


def check_arguments(
    make: Callable[..., Any],
    values: Mapping[str, Any],
    *,
    where: str,
    name: str,
    partial: bool = False,
    types: bool = True,
) -> None:
    """Raises WrongArgument for the first of `values` that `make`, called `name`, does not take.

    `where` is the key above the values. `partial`: missing arguments come later. `types`: also check the
    values against the annotations.
    """
    parameters, hints, is_open = _taken(make)
    for key, value in values.items():
        if key not in parameters:
            if not is_open:
                raise WrongArgument(
                    _unknown(f"{where}.{key}", key, value, name, parameters), key=f"{where}.{key}"
                )
        elif types and not fits(value, hints.get(key, Any)):
            unset = " (no value is set)" if value is None else ""
            raise WrongArgument(
                f"{where}.{key}={shown(value)}{unset}: expected {wanted(hints[key])}"
                + _to_inherit(value, hints[key]),
                key=f"{where}.{key}",
                value=value,
                part=_is_part(hints[key]),
            )
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in values
    ]
    if missing and not partial:
        listed = ", ".join(f"{where}.{key} ({wanted(hints.get(key, Any))})" for key in missing)
        raise WrongArgument(f"{name} needs a value for {listed}", key=f"{where}.{missing[0]}")


def check_counts(values: Mapping[str, Any], *, where: str) -> None:
    """Raises WrongArgument for a negative whole number, also in a list, and for a range of values of no size.

    For networks, whose whole numbers are all counts; `range(-1)` makes a network without blocks of it.
    """
    for key, value in values.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(type(number) is int and number < 0 for number in numbers):
            raise WrongArgument(
                f"{where}.{key}={shown(value)}: expected 0 or more", key=f"{where}.{key}", value=value
            )
        if key.endswith("_range") and value <= 0:
            raise WrongArgument(
                f"{where}.{key}={shown(value)}: expected a number above 0", key=f"{where}.{key}", value=value
            )


def _unknown(whole: str, key: str, value: Any, name: str, parameters: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, parameters, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(parameters) or "nothing"
    if len(parameters) > _MOST:
        known = near[0] if near else "no such key"
    return f"{whole}={shown(value)} is not an argument of {name}: {hint}{name} takes {known}"


def _to_inherit(value: Any, hint: Any) -> str:
    """For a part of another class: the class that it should be of."""
    held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    if all(map(_is_plain, held)):
        return ""
    parts = [part for part in (hint, *typing.get_args(hint)) for part in (part, *typing.get_args(part))]
    bases = [part for part in parts if not typing.get_args(part) and part is not Any and _is_part(part)]
    return f"; its class should inherit {bases[0].__module__}.{bases[0].__qualname__}" if bases else ""


def _taken(
    make: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    """The parameters that take keywords, their annotations, and whether there may be others."""
    if not isinstance(make, type):
        return _of_function(make)
    found: dict[str, inspect.Parameter] = {}
    hints: dict[str, Any] = {}
    for cls in make.__mro__:
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        if cls is object:
            return found, hints, False
        own, annotated, is_open = _of_function(init)
        own.pop("self", None)
        found, hints = own | found, annotated | hints
        if not is_open:
            return found, hints, False
    return found, hints, False


def _of_function(
    function: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return {}, {}, True
    is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = {
        key: p
        for key, p in parameters.items()
        if p.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):  # annotations imported for type checkers only
        hints = {}
    return named, hints, is_open


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value or a built part is of the annotated type; an int also counts as a float."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin is abc.Callable or hint is abc.Callable:
        return callable(value)
    if origin is tuple:
        return _fits_tuple(value, inner)
    if isinstance(origin, type) and issubclass(origin, abc.Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, abc.Iterable):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    return _fits_class(value, hint)


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(fits(item, inner[0]) for item in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


def _fits_class(value: Any, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        kind = int if hint is int else int | float
        return isinstance(value, kind) and not isinstance(value, bool) and value == value  # not NaN
    if hint is Path:
        return isinstance(value, str | Path)
    if not isinstance(hint, type) or hint in (Any, object):  # also a type variable or unresolved text
        return True
    if getattr(hint, "_is_protocol", False):
        return not _is_plain(value)
    return isinstance(value, hint)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict)


def _is_part(hint: Any) -> bool:
    """Whether the annotation wants an object of some class, or a function, not a plain value."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_part(part) for part in inner)
    if origin is abc.Callable:
        return True
    is_collection = isinstance(hint, type) and issubclass(hint, abc.Iterable)
    of_python = getattr(hint, "__module__", "") in ("builtins", "collections.abc")
    return isinstance(hint, type) and hint not in _WORDS and not (is_collection and of_python)


def wanted(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        plain = [part for part in inner if not _is_part(part) and not (part is int and float in inner)]
        if all(part is type(None) for part in plain):
            plain = list(inner)
        return " or ".join(dict.fromkeys(map(wanted, plain)))
    if origin is typing.Literal:
        return " or ".join(map(shown, inner)) if len(inner) < 3 else f"one of {', '.join(map(shown, inner))}"
    if origin is typing.Annotated:
        return wanted(inner[0])
    if origin is tuple and Ellipsis not in inner:
        return f"[{', '.join(map(wanted, inner))}]"
    if isinstance(origin, type) and issubclass(origin, abc.Mapping):
        return f"a mapping from names to {_plural(inner[1])}"
    if origin is not abc.Callable and isinstance(origin, type) and issubclass(origin, abc.Iterable):
        return f"a list of {_plural(inner[0])}"
    if origin is abc.Callable or hint is abc.Callable:
        return "a part with its _target_"
    if hint in _WORDS:
        return _WORDS[hint]
    return f"a part ({hint.__name__})" if isinstance(hint, type) else "a value"


def _plural(hint: Any) -> str:
    if hint is Any:
        return "values"
    if hint in _PLURALS:
        return _PLURALS[hint]
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(shown, typing.get_args(hint)))
    return f"{hint.__name__}s" if isinstance(hint, type) else "values"


def shown(value: Any) -> str:
    """A value as it is typed on the command line, shortened."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = str(value) if _is_plain(value) or isinstance(value, Path) else type(value).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
