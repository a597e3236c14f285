"""What photos are called, and the files that are written for each of them.

`unique_names` names the photos of a folder: short names where these tell them apart. `file_stem` turns such a
name into the start of a file's name, another one for every name: what a file's name cannot hold is written as
%2F, as in a URL, and what is too long ends in a number made of the whole. `photo_name` reads it back.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

LONGEST = 200
"""Bytes of a stem: with `_degraded.npy` and the like behind it a name stays below the usual limit of 255."""
_CUT = "~"
_DIGITS = 16


def unique_names(paths: Sequence[Path], root: Path) -> list[str]:
    """A name for each file below `root` that no other has: its path with `_` for `/`, without the ending.

    The path as it is where two would share that.
    """
    whole = [readable(path.relative_to(root).as_posix()) for path in paths]
    short = [readable("_".join(path.relative_to(root).with_suffix("").parts)) for path in paths]
    times = Counter(short)
    taken = {b for a, b in zip(short, whole, strict=True) if times[a] > 1}
    names = [a if times[a] == 1 and a not in taken else b for a, b in zip(short, whole, strict=True)]
    if len(set(names)) == len(names):
        return names
    return (
        [f"{name}#{number}" for number, name in enumerate(whole)] if len(set(whole)) < len(whole) else whole
    )


def readable(text: str) -> str:
    """Bytes of a file's name that are no text as %FF, so that every file and terminal can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(f"%{ord(c) & 0xFF:02X}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
    return text


def file_stem(name: str, longest: int = LONGEST) -> str:
    """The start of the names of the files that are written for a photo.

    Of at most `longest` bytes, never hidden, never in another folder, and another one for every name.
    """
    stem = "".join(_quoted(letter) for letter in readable(name)) or "%"
    if stem.startswith("."):
        stem = f"%2E{stem[1:]}"
    if len(os.fsencode(stem)) <= longest:
        return stem
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=_DIGITS // 2).hexdigest()
    room = longest - len(_CUT) - _DIGITS
    start = stem.encode()[:room].decode(errors="ignore")
    return f"{start}{_CUT}{digest}"


def photo_name(stem: str) -> str | None:
    """The name that `file_stem` made `stem` of; None where it was too long to be kept."""
    if stem[-_DIGITS - 1 : -_DIGITS] == _CUT:
        return None
    return "" if stem == "%" else unquote(stem)


def _quoted(letter: str) -> str:
    if letter in '%/\\:*?"<>|~' or not letter.isprintable():
        return "".join(f"%{byte:02X}" for byte in letter.encode())
    return letter
