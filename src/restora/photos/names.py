"""Names of photos, and of the files that are written for each of them.

`unique_names` names the photos of a folder, with short names where these are unique. `file_stem` turns such a
name into the start of a file name, a different one for every name: characters that a file name cannot hold
are percent-encoded as in a URL (%2F), and a name that is too long ends in a hash of the whole.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

LONGEST = 200
"""The most bytes of a stem: with `_degraded.npy` or the like a name stays below the usual limit of 255."""
_CUT = "~"
_DIGITS = 16


def unique_names(paths: Sequence[Path], root: Path) -> list[str]:
    """A unique name for each file below `root`: its path with `_` for `/`, without the file extension.

    If two files would share that name, they have the unchanged path.
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
    """A file name with bytes that are not text written as %FF, so that every terminal can show it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(f"%{ord(c) & 0xFF:02X}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
    return text


def file_stem(name: str, longest: int = LONGEST) -> str:
    """The start of the names of the files that are written for a photo.

    It has at most `longest` bytes, is never hidden nor in another folder, and differs for every name.
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


def _quoted(letter: str) -> str:
    if letter in '%/\\:*?"<>|~' or not letter.isprintable():
        return "".join(f"%{byte:02X}" for byte in letter.encode())
    return letter
