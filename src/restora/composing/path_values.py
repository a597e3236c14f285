"""Paths on Hydra's command line: `KEY=PATH` with accents, brackets, commas, quotes or `#` in the path.

Hydra's grammar reads those characters as lists, sweeps and comments. The values of keys that hold paths are
quoted before Hydra parses them, so that a path needs only the shell's quoting; `~/` is the home folder.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_KEYS = frozenset(
    (
        *(
            "data_dir",
            "output_dir",
            "output",
            "store_dir",
            "data.store_dir",
            "weights",
            "checkpoint",
            "model",
        ),
        *("training_photos", "resume", "init", "hydra.run.dir", "hydra.sweep.dir"),
    )
)
_LAST_PARTS = ("root", "degraded_root")
"""A dotted key whose last part is one of these holds a path."""
_PART_OF_THE_GRAMMAR = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(|\?\?\?$|null$")

_PLAIN = re.compile(r"(?!null$|true$|false$)[A-Za-z_/][\w./-]*", re.IGNORECASE | re.ASCII)
"""A path that needs no quotes; the command that a sweep records is then the one that was typed."""


def quoted(value: str) -> str:
    """The value in single quotes; inner quotes, and backslashes before them or at the end, are escaped."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def with_quoted_paths(words: Iterable[str], *, sweep: bool = False) -> list[str]:
    """The overrides with the values of path keys quoted; in a sweep, each of several paths."""
    return [_with_quoted_path(word, sweep) for word in words]


def is_path_key(key: str) -> bool:
    """Whether a key, as written before `=`, holds a path."""
    name = key.lstrip("+~").partition("@")[0]
    return name in _KEYS or name.rpartition(".")[2] in _LAST_PARTS


def _with_quoted_path(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or not value or key.startswith("-") or not is_path_key(key):
        return word
    there = Path(value).expanduser().exists()
    written = _PART_OF_THE_GRAMMAR.match(value) or value[0] in "'\"["  # written in Hydra's grammar
    if written and not there:
        return word
    if sweep and "," in value and not there:
        parts = [part if part == "null" else quoted(_from_home(part)) for part in value.split(",")]
        return f"{key}={','.join(parts)}"
    path = _from_home(value)
    return f"{key}={path if _PLAIN.fullmatch(path) else quoted(path)}"


def _from_home(path: str) -> str:
    """With `~` expanded, as not every shell does it behind `=`."""
    return str(Path(path).expanduser()) if path.startswith("~/") else path
