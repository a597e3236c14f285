"""How the C library hands memory to tensors on a CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """From now on this process keeps the memory it frees, for the next tensor. False where that has no
    switch.

    glibc gives every tensor above 32 MB, and the top of its heap, back to the kernel as soon as it is free,
    and the kernel hands the next one out page by page, zeroed: 1.1 million page faults in eight training
    steps of a small Restormer, and a third of their time (benchmarks/NOTES.md). The largest amount in use
    stays the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
