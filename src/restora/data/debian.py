"""Single files out of Debian packages, without dpkg.

A package is an ar archive (deb(5)) whose member `data.tar.*` holds the files. Qt programs keep theirs in
resource archives (`.rcc`; Qt's rcc tool, format versions 1 to 3): a tree of names over one block of contents.
A file within such an archive is named `PATH.rcc:/PATH/INSIDE`.

Note: packages are not trusted. Nothing is written here, and content that violates its format raises
`CorruptArchive`.
"""

import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from restora.data.archives import CorruptArchive

_AR, _AR_HEADER = b"!<arch>\n", 60
_QT = b"qres"
_COMPRESSED, _FOLDER, _ZSTANDARD = 1, 2, 4
_DEEPEST = 64  # folders within folders


def files_of_package(package: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and contents of each wanted file, in the order of the package.

    Raises `CorruptArchive` for a damaged package, and for one that lacks any of them.
    """
    missing = set(wanted)
    inside: dict[str, list[str]] = {}
    for name in wanted:
        inside.setdefault(name.partition(":")[0], []).append(name)
    try:
        with package.open("rb") as file, tarfile.open(fileobj=_data_member(file, package), mode="r:*") as tar:
            for info in tar:
                path = info.name.removeprefix("./")
                if path not in inside or not info.isreg():
                    continue
                source = tar.extractfile(info)
                assert source is not None, "a plain file has contents"
                content = source.read()
                resources = qt_resources(content) if any(":" in name for name in inside[path]) else {}
                for name in inside[path]:
                    _, _, resource = name.partition(":")
                    if resource and resource not in resources:
                        continue
                    missing.discard(name)
                    yield name, resources[resource] if resource else content
    except (tarfile.TarError, lzma.LZMAError, zlib.error, struct.error, EOFError, UnicodeError) as error:
        raise CorruptArchive(f"{package.name} is damaged: {error}") from error
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        raise CorruptArchive(f"{package.name} lacks {len(missing)} of {len(set(wanted))} files: {shown}")


def _data_member(file: io.BufferedReader, package: Path) -> io.BytesIO:
    """The compressed tar archive of the files."""
    if file.read(len(_AR)) != _AR:
        raise CorruptArchive(f"{package.name} is not a Debian package (a web page, perhaps)")
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, length = header[:16].decode("ascii", "replace").strip(), header[48:58].strip()
        if not length.isdigit():
            break
        size = int(length)
        if name.rstrip("/").startswith("data.tar"):
            content = file.read(size)
            if len(content) < size:
                break
            return io.BytesIO(content)
        file.seek(size + size % 2, io.SEEK_CUR)
    raise CorruptArchive(f"{package.name} is damaged: it has no whole member data.tar")


def qt_resources(data: bytes) -> Mapping[str, bytes]:
    """Contents by path of a Qt resource archive; those compressed with Zstandard are skipped."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != _QT or version not in (1, 2, 3):
        raise CorruptArchive(f"a resource archive begins with {magic!r} and version {version}")
    width = 14 if version == 1 else 22
    found: dict[str, bytes] = {}

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        start = names + offset + 6  # after the length and a hash
        return data[start : start + 2 * length].decode("utf-16-be")

    def walk(node: int, prefix: str, depth: int) -> None:
        at = tree + node * width
        offset, flags = struct.unpack_from(">IH", data, at)
        path = prefix if node == 0 else f"{prefix}/{name_at(offset)}"
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", data, at + 6)
            if depth > _DEEPEST or count > len(data):
                raise CorruptArchive("a resource archive is nested without end")
            for child in range(first, first + count):
                walk(child, path, depth + 1)
            return
        (start,) = struct.unpack_from(">I", data, at + 10)
        (size,) = struct.unpack_from(">I", data, contents + start)
        held = data[contents + start + 4 : contents + start + 4 + size]
        if not flags & _ZSTANDARD:
            found[path] = zlib.decompress(held[4:]) if flags & _COMPRESSED else held

    walk(0, "", 0)
    return found
