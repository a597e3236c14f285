"""Caches of compositions, valid while the configuration files do not change."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.config_source import ConfigResult

from restora import registry
from restora.composing.sources import COMPLETED, RECIPES, RECIPES_PROVIDER, ConfFolder

T = TypeVar("T")
_MOST_FILES = 2000
_read: dict[Any, dict[str, ConfigResult]] = {}
"""The configurations that were read, by the state of the files; only the last state is kept."""
_seen: dict[str, Any] | None = None
"""The files by folder, listed once within `as_of_now`; None outside."""


class Kept(Generic[T]):
    """A cache of the last results of a function of the configuration files and the overrides."""

    def __init__(self, most: int = 32) -> None:
        self.most, self.known = most, dict[Any, T]()

    def of(
        self, loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], make: Callable[[], T]
    ) -> T:
        key = _state(loader, config_name, overrides)
        if key is None:
            return make()
        if key not in self.known:
            made = make()
            while len(self.known) >= self.most:
                del self.known[next(iter(self.known))]
            self.known[key] = made
        return self.known[key]


def read_of(files: Any) -> dict[str, ConfigResult]:
    """The cache of configurations read from files in this state; callers add to it."""
    if files is None:
        return {}
    if files not in _read:
        _read.clear()
        _read[files] = {}
    return _read[files]


def files_of(loader: ConfigLoaderImpl, overrides: list[str]) -> Any:
    """The state of all files that a composition reads; None if it is not known."""
    sources = [source for source in loader.get_sources() if source.scheme() not in ("pkg", "structured")]
    if any(source.scheme() != ConfFolder.scheme() for source in sources):
        return None
    if any("searchpath" in word for word in overrides):
        return None
    files = []
    for source in sources:
        # this source is the root of a checkout, of which only one folder counts
        folder = os.path.join(source.path, RECIPES) if source.provider == RECIPES_PROVIDER else source.path
        files.append(_files_in(folder))
    if any(len(found) == _MOST_FILES for found in files):
        return None
    plugins = tuple(frozenset(registry.foreign(kind)) for kind in sorted({*COMPLETED.values()}))
    return plugins, tuple(files)


def _state(loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str]) -> Any:
    """Everything that a composition depends on; None if it is not known."""
    files = files_of(loader, overrides)
    return files and (config_name, tuple(overrides), os.getcwd(), version.getbase(), files)


@contextmanager
def as_of_now() -> Iterator[None]:
    """Within the block, all compositions see the files as they were when first listed."""
    global _seen
    before, _seen = _seen, {} if _seen is None else _seen
    try:
        yield
    finally:
        _seen = before


def _files_in(folder: str) -> tuple[Any, ...]:
    if _seen is not None and folder in _seen:
        return tuple(_seen[folder])
    found = tuple(itertools.islice(_files(folder), _MOST_FILES))
    if _seen is not None:
        _seen[folder] = found
    return found


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    """The configuration files in a folder, each with its modification time and size."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path, follow_symlinks=True) if name.endswith(".yaml") else None
            yield (path, status.st_mtime_ns, status.st_size) if status else ("", 0, 0)
