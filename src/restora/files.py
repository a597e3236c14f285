"""Atomic writes, JSON that every program can read, and tables whose cells are never formulas.

Note: JSON has no NaN and no infinity. They are written as null, and the file's entry `not_finite` says which
numbers they were; `read_json` restores them. Older files with a bare NaN or Infinity are read too.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NOT_FINITE = "not_finite"
LONGEST_NAME = 255
"""Bytes in a file's name, the usual limit of file systems."""
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_DRAFT = re.compile(r"\.[0-9a-f]{16}\.(\d+)\.part")


def sync(path: Path) -> None:
    """Waits until a file, or a rename in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft to write to, which becomes `path` as the block ends, or goes if it fails; `path` was as it was.

    Missing folders are made. An error of a full disk, which has no file's name, gets that of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a short name, as the file's own may be as long as the file system allows
    draft = path.with_name(
        f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.{os.getpid()}.part"
    )
    try:
        yield draft
        sync(draft)  # before the rename: a crash leaves the old file or the new one
        draft.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft)):
            error.filename = str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, or leave `path` as it was; missing folders are made."""
    with written_whole(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path, *, setting: str, folder: bool = False) -> None:
    """Raises ValueError, before any computation, if no file (or `folder`) can be written at `path`.

    Missing folders above it are not made. `setting` is what named the path, for the message. Note: a file
    without a name is opened for the check, because permissions alone do not tell of read-only disks.
    """
    whole = Path(os.path.abspath(path))
    if not folder and os.path.isdir(whole):
        raise ValueError(f"{setting}: {path} is a folder; name a file")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in whole.parts):
        raise ValueError(f"{setting}: a name in {path} is longer than {LONGEST_NAME} bytes; name another one")
    places = (whole, *whole.parents) if folder else whole.parents
    there = next(place for place in places if os.path.lexists(place))
    if not os.path.isdir(there):
        what = "a file" if there.exists() else "a link to nowhere"
        raise ValueError(f"{setting}: {there} is {what}; name {'a folder' if folder else 'another file'}")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"{setting}: {there} cannot be written to ({error.strerror}); name another one"
        ) from error


def check_archive(path: Path) -> None:
    """Compares the parts of a ZIP archive, such as torch's files, with their checksums, which torch does not.

    Raises ValueError for a part that differs. Anything but a ZIP archive is left to its reader.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:  # NotImplementedError is one
        raise ValueError(f"{path} is damaged: {error}") from error
    if part is not None:
        raise ValueError(f"{path} is damaged: the checksum of {part} does not match")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as one of safetensors does, whatever it is called: a length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def table_text(text: str) -> str:
    """`text` for a cell of a CSV file.

    A spreadsheet takes a cell that begins with =, +, - or @ for a formula; a leading apostrophe marks it as
    text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def table_word(cell: str) -> str:
    """The text that `table_text` made into `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def clear_drafts(folder: Path, *, below: bool = False) -> None:
    """Removes the drafts that killed processes left in `folder`; with `below`, also in folders below it."""
    for draft in folder.rglob(".*.part") if below else folder.glob(".*.part"):
        found = _DRAFT.fullmatch(draft.name)
        if found is not None and not is_running(int(found[1])):
            draft.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this machine runs, by its number."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except ProcessLookupError:
        return False
    except OSError:  # another user's process, or no /proc
        return True
    return state.split()[0] not in "ZX"  # Z: a zombie, killed but not yet waited for


def write_json(path: Path, content: Any) -> None:
    """Write `content` as strict JSON, whole or not at all. Raises `TypeError` for what JSON cannot hold."""
    write_whole(path, json_text(content) + "\n")


def json_text(content: Any, *, indent: int | None = 2, sort_keys: bool = False) -> str:
    """`content` as strict JSON: plain values, lists and mappings; paths as text.

    In a mapping, `not_finite` says which nulls were NaN or infinite. For any other type of value, raises a
    `TypeError` that names its place.
    """
    lost: dict[str, str] = {}
    strict = _strict(content, "", lost)
    if lost and isinstance(strict, dict):
        strict[NOT_FINITE] = lost
    return json.dumps(strict, indent=indent, sort_keys=sort_keys, allow_nan=False)


def read_json(path: Path) -> Any:
    """The content that `write_json` of any version wrote. Raises `OSError`, or `ValueError` if not JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    lost = content.pop(NOT_FINITE, None) if isinstance(content, dict) else None
    return _restored(content, "", lost) if isinstance(lost, dict) else content


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file that has one per line.

    Other lines, such as one that a kill has cut off, are skipped.
    """
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            lost = content.pop(NOT_FINITE, None)
            found.append(_restored(content, "", lost) if isinstance(lost, dict) else content)
    return found


def _strict(value: Any, where: str, lost: dict[str, str]) -> Any:
    """`value` in JSON's own types; `lost` gets the numbers that are not finite, by their place."""
    if isinstance(value, float) and not math.isfinite(value):
        lost[where] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(item, _below(where, key), lost) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item, _below(where, index), lost) for index, item in enumerate(value)]
    place = f" at {where}" if where else ""
    raise TypeError(f"a {type(value).__name__}{place} is not a value of JSON: {value!r}")


def _restored(value: Any, where: str, lost: Mapping[str, Any]) -> Any:
    if value is None and where in lost:
        return float(str(lost[where]))
    if isinstance(value, dict):
        return {key: _restored(item, _below(where, key), lost) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, _below(where, index), lost) for index, item in enumerate(value)]
    return value


def _below(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
