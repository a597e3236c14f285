"""A CUDA graph, played on a CPU: the calls that reach torch are kept, and made again into the same memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restora import keyed

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")


class Tape(TorchDispatchMode):
    """In the place of torch.cuda.CUDAGraph: what was asked of torch, and what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            raise RuntimeError(f"{name} cannot be recorded")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            for kept, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(kept, Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class Played:
    """In the place of torch.cuda, as far as a recording needs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mode: int | str = "default"
        """What waiting for the device does."""
        self.recorded = 0
        monkeypatch.setattr(keyed, "_FEW", -1)  # a few numbers on a CPU are made by numpy
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)

    @contextmanager
    def graph(self, tape: Tape, *, capture_error_mode: str) -> Iterator[None]:
        assert self.mode == "default"
        assert capture_error_mode == "thread_local"
        self.recorded += 1
        with tape:
            yield

    def set_mode(self, mode: int | str) -> None:
        self.mode = mode
