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
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)  # 48 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
def test_kept_memory_is_not_faulted_in_again() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", MEASURE, way], capture_output=True, check=True).stdout)
        for way in ("given back", "kept")
    }
    assert faults["kept"] < 1000, faults
    assert faults["given back"] > 10 * faults["kept"], faults
