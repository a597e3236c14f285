"""The memory that a tile takes, and the memory that is free.

Note: only the tensors that a network holds at once are counted; the workspace of convolutions comes on top
and is covered by a factor.
"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restora.networks.base import Network

PROBE = 64
"""Side of the photo that memory is measured on."""
SHARE = 0.7
"""The share of the free memory that tiles may take."""
SCRATCH = 1.5
"""The factor on the tensors' memory for the workspace of libraries."""


def free_bytes(device: torch.device) -> int | None:
    """The free memory of a device; None if that is not known."""
    if device.type == "cuda":
        # what torch holds without using it is free for it
        return torch.cuda.mem_get_info(device)[0] + (
            torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        )
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # another system
        return None


@torch.no_grad()
def bytes_per_pixel(network: Network) -> float:
    """The peak of the tensors that a float32 network holds while it restores, per pixel of its input."""
    measured: float | None = getattr(network, "bytes_per_pixel", None)
    if measured is not None:  # of a graph, whose tensors are not visible
        return measured
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    photo = torch.rand(1, network.in_channels, PROBE, PROBE, device=device)
    condition = None
    if network.condition_channels:
        condition = torch.rand(1, network.condition_channels, PROBE, PROBE, device=device)
    with _Held() as held:
        network(photo, condition)
    return held.most / PROBE**2


def fitting_tile(network: Network, *, device: torch.device, largest: int, least: int) -> int:
    """The largest side of a tile, `largest` halved as often as needed, that fits into the free memory."""
    free = free_bytes(device)
    if free is None:
        return largest
    needed = SCRATCH * bytes_per_pixel(network)
    tile = largest
    while tile // 2 >= least and needed * tile**2 > SHARE * free:
        tile //= 2
    return tile


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory ran out, in the words of any of the libraries."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
    )


class _Held(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and still live; `most` is their peak."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled inside; if true, torch imports its compiler at the first call, for seconds."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
