"""Loads published weights: safely, and with any wrapping keys.

Errors name the fix.

Enters: a `.pth`, `.pt`, `.ckpt` or `.safetensors` file. Leaves: a network with its weights. torch files are
read by the weights-only reader, so no code in a file is executed. Wrapping keys (`params`, `params_ema`,
`state_dict`, `model`, a `module.` before every name, our own checkpoints' `network.` and `ema.`) are not
listed: nested dictionaries are flattened to dotted names, and the prefix under which most names match the
network's is used; averaged weights win ties.

A network class may have two hooks: `adapt_weights(state)` renames other published names, and the class method
`infer_arguments(state)` infers constructor arguments from the shapes (None for weights of another network).
"""

import argparse
import inspect
import pickle
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restora.files import check_archive, is_safetensors
from restora.networks.base import Network

_SHOWN = 4
HARMLESS = ("num_batches_tracked",)
"""Last parts of the names of tensors that do not affect outputs."""
_DEEPEST_WRAPPER = 3


class WeightsError(ValueError):
    """Weights that cannot be read, or do not fit the network; the message names what would fit."""


def load_weights(network: Network, path: str | Path) -> None:
    """Copy the weights in the file at `path` into `network`; every name and shape must agree.

    Raises WeightsError with the missing, unexpected and differently shaped names, and with the arguments or
    the network that would fit, where they can be inferred.
    """
    path = Path(path)
    tensors = read_tensors(path)
    try:
        load_state(network, fitted(network, unwrap(network, tensors)), str(path))
    except WeightsError as error:
        raise WeightsError(f"{error}\n{suggestion(type(network), tensors)}") from None


def load_state(network: Network, state: Mapping[str, Tensor], where: str) -> None:
    """Copy `state` into `network`.

    Every name and shape must agree; otherwise WeightsError names the misfits and their source, `where`.
    """
    problems = misfits(network, state)
    if problems:
        raise WeightsError("\n".join(_listed(network, problems, where)))
    check_finite(state, where)
    network.load_state_dict(dict(state), strict=False)  # other missing or unexpected names are harmless


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises WeightsError for weights with which no photo can be restored."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise WeightsError(
            f"{where} has values that are not finite in {bad[0]}{more}: the training that wrote it had "
            "diverged; take an earlier checkpoint of it"
        )


def network_from_weights(
    cls: type[Network], arguments: Mapping[str, Any], path: str | Path, *, chosen: Collection[str] = ()
) -> tuple[Network, dict[str, Any]]:
    """cls(**arguments) with the weights in the file at `path`.

    Arguments that can be inferred from the weights are corrected.

    `chosen` names the arguments that the user set; these are not changed. Returns the network and the changed
    arguments with their new values, which should be reported to the user. Raises WeightsError if the weights
    still do not fit.
    """
    path = Path(path)
    network = cls(**arguments)
    found = inferred(cls, unwrap(network, read_tensors(path))) or {}
    changed = {
        name: value
        for name, value in found.items()
        if name not in chosen and not _equal(arguments.get(name, inspect.Parameter.empty), value)
    }
    if changed:
        network = cls(**{**arguments, **changed})
    load_weights(network, path)
    return network, changed


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors in a file by their dotted names, on the CPU.

    Raises WeightsError if it cannot be read safely.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if is_safetensors(path) or (path.suffix == ".safetensors" and not is_torch_file(path)):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from error
    loaded = _load_torch(path)
    if isinstance(loaded, list | tuple):
        loaded = {str(number): part for number, part in enumerate(loaded)}
    tensors = dict(_flatten(loaded))
    if not tensors:
        raise WeightsError(f"{path} holds no tensors: is it a weights file?")
    return tensors


def under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of the entry `name`, by their names in it."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


def is_torch_file(path: Path) -> bool:
    """Whether a file starts like torch's: the zip format or the old pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04")


def _check_parts(path: Path) -> None:
    """Raises WeightsError for a ZIP archive that is no torch file, or one of TorchScript, with code in it."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as parts:
        names = parts.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is TorchScript, a program, which restora never runs: ask its author for a state dict, "
            "or torch.save(torch.jit.load(FILE).state_dict(), …) if you trust it"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        shown = ", ".join(names[:_SHOWN]) or "nothing"
        raise WeightsError(f"{path} is an archive that holds {shown}: unpack it, and name the weights in it")


_DOWNLOADS = (
    (b"<", "a web page, not weights: download the file itself"),
    (b"{", "JSON, not weights: of a model folder, name the folder"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights: `git lfs pull` gets them"),
)
"""First bytes of files that are often saved instead of weights."""


def _load_torch(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        raise WeightsError(f"{path} is empty: download it again")
    for start, what in _DOWNLOADS:
        if head.startswith(start):
            raise WeightsError(f"{path} is {what}")
    if head.isascii() and head.decode("ascii").replace("\n", " ").replace("\t", " ").isprintable():
        shown = head.decode("ascii").splitlines()[0][:40]
        raise WeightsError(f"{path} is a text file, not weights; it starts with: {shown}")
    _check_parts(path)
    try:
        check_archive(path)
    except ValueError as error:
        raise WeightsError(f"{error}: download it again") from error
    # types in old checkpoints besides tensors that can be rebuilt without running their code
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [argparse.Namespace, scalar, np.dtype, *(type(np.dtype(kind)) for kind in "fdilq")]
    harmless.append((scalar, "numpy.core.multiarray.scalar"))  # the same function in numpy 1
    try:
        with torch.serialization.safe_globals(harmless), path.open("rb") as file:  # torch goes by a name
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(_unsafe(path)) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged or not a torch file: {_in_a_line(error)}") from error


def _in_a_line(error: Exception) -> str:
    """The first line of an error; with its type if the line alone says nothing, such as a KeyError's key."""
    first = str(error).strip().partition("\n")[0]
    return first if " " in first else f"{type(error).__name__} {first}".strip()


def _unsafe(path: Path) -> str:
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, OSError):  # not a zip file: an older format, or not a torch file
        needed = []
    reason = "is not a torch file of plain tensors, and restora loads no other objects from a weights file"
    if needed:
        strangest_first = sorted(needed, key=lambda name: (name.startswith("torch."), name))
        asked = ", ".join(strangest_first[:_SHOWN])
        reason = f"asks for {asked} to be run, which restora never does for a weights file"
    return (
        f"{path} {reason}: ask its author for a state dict "
        "or a .safetensors file, or, if you trust it, load it yourself and torch.save(model.state_dict(), …)"
    )


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries (and namespaces), under dotted names."""
    if isinstance(value, Tensor):
        yield prefix.removesuffix("."), value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flatten(part, f"{prefix}{name}.")


def unwrap(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the prefix that matches `network` best, by their published names without it."""
    own = network.state_dict().keys()
    best: tuple[tuple[int, bool, int], dict[str, Tensor]] = ((-1, False, 0), {})
    for prefix in prefixes(tensors):
        state = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        # most names of ours; then averaged weights; then the shortest prefix
        rank = (len(own & fitted(network, state).keys()), "ema" in prefix.lower(), -len(prefix))
        best = max(best, (rank, state), key=lambda pair: pair[0])
    return best[1]


def prefixes(names: Iterable[str]) -> list[str]:
    """All prefixes that the names may have, including ""."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1][:_DEEPEST_WRAPPER]
        found.update(".".join(parts[: depth + 1]) + "." for depth in range(len(parts)))
    return sorted(found)


def fitted(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under the names of the network (`adapt_weights`)."""
    adapt = getattr(network, "adapt_weights", None)
    return dict(adapt(state) if adapt else state)


def _ignored(names: Iterable[str], network: Network) -> set[str]:
    last = (*HARMLESS, *network.computed_names)
    return {name for name in names if name.rpartition(".")[2] in last}


def misfits(network: Network, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Missing, unexpected and differently shaped names, in words; only kinds that occur."""
    own = network.state_dict()
    ignored = _ignored([*own, *state], network)
    found = {
        "missing": [name for name in own if name not in state and name not in ignored],
        "unexpected": [name for name in state if name not in own and name not in ignored],
        "of another shape": [
            f"{name} is {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the network"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    return {kind: names for kind, names in found.items() if names}


def _listed(network: Network, problems: dict[str, list[str]], where: str) -> Iterator[str]:
    yield f"the weights in {where} do not fit {type(network).__name__}:"
    for kind, names in problems.items():
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"  {len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}"


def suggestion(cls: type[Network], tensors: Mapping[str, Tensor]) -> str:
    """The network that the tensors of a file fit: `cls` with other arguments, or another network."""
    from restora.networks.recognition import candidates

    found = {candidate.name: candidate for candidate in candidates(tensors)}
    same = [candidate for candidate in found.values() if candidate.cls is cls]
    if same:
        return f"they would fit {as_overrides(same[0].arguments)}"
    if not found:
        return "no network of restora recognises them"
    listed = "; or of ".join(
        f"{each.cls.__name__} with {as_overrides(each.arguments)} (network={name})"
        for name, each in found.items()
    )
    return f"they look like weights of {listed}"


def as_overrides(arguments: Mapping[str, Any]) -> str:
    """Arguments as Hydra overrides, as typed after `restora evaluate`."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list | tuple):
            return "[" + ",".join(map(text, value)) + "]"
        return "null" if value is None else str(value)

    return " ".join(f"network.{name}={text(value)}" for name, value in arguments.items())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return list(a) == list(b)
    return bool(a == b)


def inferred(cls: type[Network], state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The arguments that the class infers from the weights; None if they do not match or it has no hook."""
    infer = getattr(cls, "infer_arguments", None)
    if infer is None:
        return None
    try:
        found: dict[str, Any] | None = infer(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # names alike, shapes of something else
        return None
    return found
