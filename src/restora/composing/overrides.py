"""Overrides in Hydra's grammar: the options they choose, the values they sweep, and their text."""

import functools
import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import OverrideParseException

from restora import vocabulary

_ALIASES = {"precision": "trainer.precision", "init": "init.source"}
"""Short names of keys: `precision`, which other commands use in the same sense, and the source of `init`."""
_DURATIONS = ("trainer.max_time",)


class Refused(ValueError):
    """An override that cannot be written out; its message can be shown to the user unchanged."""


def parsed_by(loader: ConfigLoaderImpl, overrides: Iterable[str]) -> list[Override]:
    """The overrides as Hydra's grammar reads them; `glob` ones take the loader's options."""
    return [replace(_parsed(word), config_loader=loader) for word in overrides]


@functools.lru_cache(maxsize=4096)
def _parsed(override: str) -> Override:
    """A cached override, which must not be changed; parsing takes 1 ms, and a sweep's jobs share most."""
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except OverrideParseException as error:
        raise Refused(_unreadable(override, str(error))) from error


def _unreadable(override: str, message: str) -> str:
    """The message for an override outside of Hydra's grammar, without the tokens of its parser."""
    for line in message.splitlines():
        if " while evaluating " in line:
            return f"{override}: {line.partition(': ')[2]}"
    key, equals, value = override.partition("=")
    if not re.fullmatch(r"[+~]*[\w./@:$-]+", key) or key.startswith("-"):
        return f"{override}: {key!r} is not a valid key"
    if not equals:
        return f"{override}: missing value: write {key}=VALUE"
    quoted = value.strip("'\"")
    return (
        f"{override}: Hydra's grammar cannot read the value; text with special characters needs two pairs of "
        f"quotes: '{key}=\"{quoted}\"'"
    )


def chooses(override: Override, repository: IConfigRepository) -> bool:
    """Whether an override picks an option of a group, rather than setting a key."""
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    return "." not in override.key_or_group and repository.group_exists(override.key_or_group)


def plain_value(override: str) -> tuple[str, Any] | None:
    """Key and value of an override that only sets a key to a number, a text or null.

    None for any other override.
    """
    found = _parsed(override)
    value, key = found.value(), found.key_or_group
    if found.type != OverrideType.CHANGE or found.package is not None or "/" in key:
        return None
    if key in _ALIASES or key in _DURATIONS or not isinstance(value, int | float | str | None):
        return None
    return None if "${" in str(value) or value == "???" else (key, value)


def sweeps_among(overrides: Iterable[str]) -> list[str]:
    """The overrides with several values."""
    return [word for word in overrides if _parsed(word).is_sweep_override()]


def combinations(loader: ConfigLoaderImpl, overrides: Iterable[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, of any form of override; an interval counts as its two ends."""
    parsed = parsed_by(loader, overrides)
    values: dict[str, list[str]] = {}
    for o in parsed:
        if o.is_hydra_override():
            continue
        key = o.get_key_element()
        if o.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in values_of(o)]
        elif o.is_sweep_override():
            interval: Any = o.value()
            values[key] = [f"{key}={interval.start}", f"{key}={interval.end}"]
        else:
            values[key] = [str(o.input_line)]
    return [list(job) for job in itertools.product(*values.values())]


def values_of(override: Override) -> list[str]:
    """The values of a discrete sweep, as they are typed. Raises Refused if there are none."""
    found = [str(value) for value in override.sweep_string_iterator()]
    if not found:
        raise Refused(f"{override.input_line}: no option matches")
    return found


def first_option(override: Override) -> str:
    """The option that an override chooses; for a sweep, the first one."""
    if override.is_sweep_override():
        return values_of(override)[0]
    return str(override.get_value_element_as_str())


def with_alias(override: Override) -> Override:
    if override.package is None and (key := _ALIASES.get(override.key_or_group)):
        override.key_or_group = key
    return override


def written(override: Override, key: str | None) -> str:
    if override.key_or_group in _DURATIONS and override.value() is not None:
        return f"{override.get_key_element()}={_durations(override)}"
    if override.is_delete():
        return str(override.input_line)
    return f"{key or override.get_key_element()}={_value_of(override)}"


def _value_of(override: Override) -> str:
    """The value as it was typed, for a sweep with all values."""
    return str(override.input_line).partition("=")[2]


def _durations(override: Override) -> str:
    """A duration as one word, so that it replaces a mapping instead of being merged into it."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return ",".join(_one_duration(one) for one in value.list)
    return _value_of(override) if override.is_sweep_override() else _one_duration(value)


def _one_duration(value: Any) -> str:
    if value is None:
        return "null"
    plain = {str(k): v for k, v in value.items()} if isinstance(value, dict) else str(value)
    try:
        length = vocabulary.seconds(plain, "trainer.max_time")
    except ValueError as error:
        raise Refused(str(error)) from error
    assert length is not None
    return vocabulary.duration(length)
