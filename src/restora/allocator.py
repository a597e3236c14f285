"""How the C library hands memory to tensors on a CPU.

glibc gives every tensor above 32 MB, and the top of its heap, back to the kernel as soon as it is free, and
the kernel hands the next one out page by page, zeroed: 1.1 million page faults in eight training steps of a
small Restormer, and a third of their time; on a tile of 512x512 a network takes up to three times as long
(benchmarks/NOTES.md). Kept memory is not faulted in again, and the largest amount in use stays the same.
Elsewhere than on glibc nothing changes.
"""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20))
"""What glibc arrives at by itself in a process that has freed a tensor of 32 MB."""
_lock = threading.Lock()
_holders = 0


def keep_freed_memory() -> bool:
    """From now on this process keeps the memory it frees, for the next tensor. False where that has no
    switch. For commands, which own their process."""
    return _hold()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same for the time of a `with` block, after which the memory goes back. Any number of threads may be
    in one; the last to leave gives back."""
    held = _hold()
    try:
        yield
    finally:
        if held:
            _release()


def _hold() -> bool:
    global _holders
    with _lock:
        mallopt = _function("mallopt")
        if mallopt is None or not (mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1)):
            return False
        _holders += 1
        return True


def _release() -> None:
    global _holders
    with _lock:
        _holders -= 1
        mallopt, trim = _function("mallopt"), _function("malloc_trim")
        if _holders == 0 and mallopt is not None and trim is not None:
            for parameter, value in _USUAL:
                mallopt(parameter, value)
            trim(0)


def _function(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
    return function
