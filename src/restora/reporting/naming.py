"""Names of runs in a comparison, made only of the settings that differ: `lr=0.001 seed=2`.

A run is named by the overrides that were typed for it or for one of the others. A setting that was typed for
one run only is looked up in the configuration of the others.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from restora.reporting.values import as_text, lookup, surrounds
from restora.vocabulary import AUTO

LONGEST = 28
"""Most characters of a value; of a longer one only the end is shown."""
_CHOICES = {"experiments": "experiment", "network": "network"}
"""Groups whose option is in every run record, even if it was not typed."""
_FRACTION = re.compile(r"[+-]?(\d*\.\d+|\d+\.?\d*e[+-]?\d+|\d*\.\d+e[+-]?\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """`words` are the settings that distinguish a run: the shortest unambiguous key -> value."""

    base: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    shows_base: bool = True
    place: str = ""
    """The run's folder, if no setting distinguishes it from another run."""

    @property
    def label(self) -> str:
        return self._written(self.words, self.place)

    @property
    def method(self) -> str:
        """The name without seed and folder, which the seeds of one method share."""
        return self._written({key: value for key, value in self.words.items() if not is_seed(key)})

    @property
    def seed(self) -> str:
        """The seed alone, its name among the seeds of one method; empty if it does not differ."""
        return " ".join(f"{key}={value}" for key, value in self.words.items() if is_seed(key))

    def _written(self, words: Mapping[str, str], place: str = "") -> str:
        listed = [f"{key}={value}" for key, value in words.items()]
        name = [self.base] if self.shows_base or not listed else []
        return " ".join([*name, *listed, *([f"({place})"] if place else [])])


def is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def names(records: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[Name]:
    """A unique name for each run record; `places` are the folders of the runs."""
    bases = [
        _text(lookup(record, "name")) or place.rpartition("/")[2]
        for record, place in zip(records, places, strict=True)
    ]
    given = [Name(base) for base in bases]
    for base in dict.fromkeys(bases):
        alike = [index for index, other in enumerate(bases) if other == base]
        found = distinguishing([records[index] for index in alike]) if len(alike) > 1 else {}
        for place, index in enumerate(alike):
            words = {key: values[place] for key, values in found.items() if values[place]}
            given[index] = Name(base, words, shows_base=len(set(bases)) > 1)
    times = Counter(name.label for name in given)
    return [
        Name(name.base, name.words, name.shows_base, place) if times[name.label] > 1 else name
        for name, place in zip(given, places, strict=True)
    ]


def distinguishing(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The typed settings that are not the same in all records.

    Shortest unambiguous key -> a text per record, empty if a record has no value.
    """
    typed = [_typed(record) for record in records]
    differing: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for one in typed for key in one):
        values = [_value(key, one.get(key), record) for one, record in zip(typed, records, strict=True)]
        said = {one.get(key) for one in typed}
        decided = set(values) - ({AUTO} if said == {AUTO} else set())  # a queued run's is not decided yet
        if len(decided) > 1 and _is_different(key, records):
            differing[key] = values
    return {
        short: _short_values(values)
        for short, values in zip(short_keys(differing), differing.values(), strict=True)
    }


def overrides(record: Mapping[str, Any]) -> list[str]:
    """The overrides of a run. The first edition recorded those of a sweep's job, or else the command."""
    for path in (("overrides",), ("sweep", "overrides")):
        listed = lookup(record, *path)
        if isinstance(listed, list) and listed:
            return [word for word in listed if isinstance(word, str)]
    try:
        words = shlex.split(_text(lookup(record, "command")))
    except ValueError:
        return []
    return [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]


def _typed(record: Mapping[str, Any]) -> dict[str, str]:
    """Key in the configuration -> the typed value; for a group, its option."""
    found = {}
    for word in overrides(record):
        target, _, value = word.partition("=")
        group, _, package = target.lstrip("+~").partition("@")
        key = (package.rpartition(":")[2] or group).replace("/", ".")
        if key and key != "name" and not surrounds(key) and not key.startswith("hydra"):
            found[key] = "off" if target.startswith("~") else value
    asked = lookup(record, "asked")
    asked = asked if isinstance(asked, dict) else {}
    return {key: value for key, value in asked.items() if isinstance(value, str)} | found


def _value(key: str, typed: str | None, record: Mapping[str, Any]) -> str:
    """A setting of a run as text: the typed value, else that of its configuration; for a part, its name.

    Of `auto` it is what the machine of the run has made of it.
    """
    if key in _CHOICES and (chosen := _text(lookup(record, _CHOICES[key]))):
        return chosen
    node = lookup(record, "config", *key.split("."))
    if typed is not None and not (typed == AUTO and isinstance(node, str)):
        plain = re.sub(r"\\(.)", r"\1", typed).strip("'\"")
        return as_text(float(plain)) if _FRACTION.fullmatch(plain) else plain.replace(", ", ",")
    if isinstance(node, dict):
        return _text(node.get("_target_")).rpartition(".")[2]
    return "" if node is None else as_text(node).replace(", ", ",")


def _is_different(key: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the configurations differ at `key`, and not only the typed text."""
    nodes = []
    for record in records:
        own = _text(lookup(record, "config", "run_dir"))
        text = as_text(lookup(record, "config", *key.split(".")))
        nodes.append(text.replace(own, "RUN") if own else text)
    return set(nodes) == {"null"} or len(set(nodes)) > 1


def short_keys(keys: Iterable[str]) -> list[str]:
    """The last part of each key, with as many parts before it as make it unique."""
    parts = [key.split(".") for key in keys]
    short = []
    for one in parts:
        others = [other for other in parts if other != one]
        length = 1
        while length < len(one) and any(other[-length:] == one[-length:] for other in others):
            length += 1
        short.append(".".join(one[-length:]))
    return short


def _short_values(values: Sequence[str]) -> list[str]:
    """The values with as few digits, folders and letters as keep them distinct."""
    ways: list[Callable[[Sequence[str]], list[str]]] = [partial(_rounded, digits) for digits in (5, 4, 3)]
    for shorten in (*ways, _without_common_folders, _ends):
        shorter = shorten(values)
        if len(set(shorter)) == len(set(values)):
            values = shorter
    return list(values)


def _rounded(digits: int, values: Sequence[str]) -> list[str]:
    """Rounds small fractions, such as learning rates, to `digits`; not 0.9999, which would become 1."""
    return [f"{float(v):.{digits}g}" if re.fullmatch(r"-?(0?\.0\d+|\d\.\d+e-\d+)", v) else v for v in values]


def _without_common_folders(values: Sequence[str]) -> list[str]:
    """Paths without the folders that they share at the start and at the end."""
    known = [value.split("/") for value in dict.fromkeys(values) if value]
    if len(known) < 2 or not all(len(parts) > 1 for parts in known):
        return list(values)
    start = 0
    while all(len(parts) > start + 1 and parts[start] == known[0][start] for parts in known):
        start += 1
    end = 0
    while all(len(parts) > start + end + 1 and parts[-1 - end] == known[0][-1 - end] for parts in known):
        end += 1
    cut = [value.split("/") for value in values]
    return ["/".join(parts[start : len(parts) - end]) if len(parts) > 1 else parts[0] for parts in cut]


def _ends(values: Sequence[str]) -> list[str]:
    return [value if len(value) <= LONGEST else f"…{value[1 - LONGEST :]}" for value in values]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
