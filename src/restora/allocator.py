"""How the C library hands memory to tensors on a CPU.

glibc gives every tensor above 32 MB, and the top of its heap, back to the kernel as soon as it is free, and
the kernel hands the next one out page by page, zeroed: 1.1 million page faults in eight training steps of a
small Restormer, and a third of their time; on a tile of 512x512 a network takes up to three times as long
(benchmarks/NOTES.md). Kept memory is not faulted in again, and the largest amount in use stays the same.

Threads other than the first have heaps of 64 MB, which go back whenever they are empty, so a command has one
heap for all its threads: restoring 2.2 megapixels in a thread took 1.2 million page faults, with it 45,000.

Memory is also taken in pages of 2 MB where the kernel gives them on request: a training step is 1.02 to 1.08
times as fast. With other C libraries nothing changes.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20))
"""The values that glibc sets by itself in a process that has freed a tensor of 32 MB."""
_MADV_HUGEPAGE, _HUGE = 14, 2 << 20
_lock = threading.Lock()
_holders = 0


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for the next tensor.

    False if the C library has no such setting. For commands, which own their process, before they import
    torch: threads that have allocated something keep a heap of their own.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
    return _hold()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory during a `with` block and gives it back to the system afterwards.

    Several threads may be in such a block; the last one to leave gives the memory back.
    """
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
        if _holders == 0:
            _ask_for_huge_pages()
        _holders += 1
        return True


def _ask_for_huge_pages() -> None:
    """Allocates half of the machine's memory on the heap as huge pages, and frees it untouched.

    The heap must keep freed memory. Unused pages cost nothing, and later tensors get huge pages. If the
    allocation fails, nothing changes.
    """
    malloc, free, madvise = (_function(name) for name in ("malloc", "free", "madvise"))
    if malloc is None or free is None or madvise is None:
        return
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    malloc.restype = ctypes.c_void_p
    start = malloc(ctypes.c_size_t(size))
    if start is not None:
        first = -(-start // _HUGE) * _HUGE
        length = (start + size - first) // _HUGE * _HUGE
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_HUGEPAGE)
        free(ctypes.c_void_p(start))


def _release() -> None:
    global _holders
    with _lock:
        _holders -= 1
        mallopt, trim = _function("mallopt"), _function("malloc_trim")
        if _holders == 0 and mallopt is not None and trim is not None:
            for parameter, value in _USUAL:
                mallopt(parameter, value)
            trim(0)


def _function(name: str) -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
