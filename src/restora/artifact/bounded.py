"""Builds a network that a file describes, without trusting the file.

Enters: a registered class and its arguments, as plain JSON values. Leaves: the network. It is first built on
the meta device, where tensors take no memory, and refused as soon as it has more parameters than any network
that this package could run; so an absurd depth or width costs a second, and does not exhaust the machine.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from restora.networks.base import Network
from restora.networks.meta import on_meta

_LARGEST_NUMBER = 1_000_000
_LONGEST_LIST = 1_000
_MOST_TENSORS = 10_000
_MOST_ELEMENTS = 4_000_000_000
"""16 GB of float32; the largest network of this package has 0.12 billion."""


def build_bounded(cls: type[Network], arguments: Mapping[str, Any]) -> Network:
    """`cls(**arguments)`. Raises ValueError for arguments that it refuses and for absurd sizes."""
    imagined(cls, arguments)
    return _made(cls, arguments)


def imagined(cls: type[Network], arguments: Mapping[str, Any]) -> Network:
    """`cls(**arguments)` without memory for its weights. Raises ValueError for absurd sizes."""
    for name, value in arguments.items():
        _check(f"{cls.__name__}: {name}", value)

    def make() -> Network:
        with _counting(cls.__name__):
            return _made(cls, arguments)

    return on_meta(make)


def _made(cls: type[Network], arguments: Mapping[str, Any]) -> Network:
    try:
        return cls(**arguments)
    except ValueError:
        raise
    except Exception as error:  # a constructor of the user's own raises anything
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{cls.__name__} does not take the arguments {dict(arguments)}: {first}") from error


def _check(where: str, value: Any) -> None:
    """Refuses numbers and lists of a size that no network has."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check(f"{where}.{name}", part)
    elif isinstance(value, list | tuple):
        if len(value) > _LONGEST_LIST:
            raise ValueError(f"{where} has {len(value)} entries, at most {_LONGEST_LIST} are allowed")
        for part in value:
            _check(where, part)
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"{where} is {value}, at most {_LARGEST_NUMBER} is allowed")


@contextmanager
def _counting(name: str) -> Iterator[None]:
    """Raises ValueError as soon as this thread registers more than a network may have."""
    thread, tensors, elements = threading.get_ident(), 0, 0

    def count(_parent: nn.Module, _key: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, elements
        if threading.get_ident() != thread or parameter is None:
            return
        tensors, elements = tensors + 1, elements + parameter.numel()
        if tensors > _MOST_TENSORS or elements > _MOST_ELEMENTS:
            raise ValueError(
                f"{name} would have more than {_MOST_TENSORS:,} layers or {_MOST_ELEMENTS:,} weights: refused"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
