"""Imports other people's implementations if they are installed; else names the command that installs them.

`make bench` and `make test` install them beside the environment (benchmarks/peers.txt, tests/peers.txt), so
that they do not mix with the users' packages.
"""

import importlib.util
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

FOLDERS = {"peers": "tests/peers.txt", "peers-bench": "benchmarks/peers.txt"}
INSTALL = "python -m pip install --no-deps --no-build-isolation --target {folder} --requirement {needs}"
_operators: list[torch.library.Library] = []


class PeerMissingError(ImportError):
    """A peer is not installed or cannot be imported; the message names the fix."""


def peer(module: str, name: str, folder: str = "peers") -> Any:
    """The attribute `name` of a peer's module; `folder` is where it is installed. Raises
    `PeerMissingError`."""
    places = [Path(sys.prefix) / each for each in FOLDERS]
    sys.path.extend(str(place) for place in places if place.is_dir() and str(place) not in sys.path)
    declare_operators()
    try:
        if module.startswith("basicsr"):  # it imports a torchvision module by its old name
            old = "torchvision.transforms.functional_tensor"
            sys.modules.setdefault(old, import_module("torchvision.transforms._functional_tensor"))
        return getattr(import_module(module), name)
    except ImportError as error:
        package = module.partition(".")[0]
        fix = INSTALL.format(folder=Path(sys.prefix) / folder, needs=FOLDERS[folder])
        raise PeerMissingError(f"{package} is not installed ({error}): {fix}") from error


def declare_operators() -> None:
    """Declares the operators that a torchvision without its own compiled ones needs at import.

    Such a torchvision is beside a CPU-only torch, or was built for another torch. A matching one has its own
    operators, and torch ends the process if they are declared twice.
    """
    found = importlib.util.find_spec("torchvision")
    if _operators or found is None or found.origin is None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    _operators.append(library)
    try:
        torch.ops.load_library(next(Path(found.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        for name in ("nms", "qnms"):
            with suppress(RuntimeError):  # declared already
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
