"""Memory that is kept is not faulted in again."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
import torch
from restora.training.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
x = torch.ones(12_000_000)  # 48 MB, above the size that glibc ever keeps
for step in range(6):
    if step == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y = x + 1
    for _ in range(4):
        y = y * 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
def test_kept_memory_is_not_faulted_in_again() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", MEASURE, way], capture_output=True, check=True).stdout)
        for way in ("given back", "kept")
    }
    # the heap may still grow by a tensor where something small lies in the way
    assert faults["given back"] > 5 * faults["kept"], faults
