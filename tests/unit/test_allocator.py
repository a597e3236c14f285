"""Memory that is kept is not faulted in again."""

import platform
from pathlib import Path

import pytest
from warm_start import run_code


def measured(code: str, *words: str) -> str:
    """What code says in a process of its own."""
    done = run_code(code, *words)
    assert done.returncode == 0, done.stdout
    return done.stdout


MEASURE = """
import resource, sys, threading
import torch
from restora.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
x = torch.ones(int(sys.argv[2]))

def compute():
    for step in range(6):
        if step == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        y = x + 1
        for _ in range(4):
            y = y * 2
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[3] == "thread":
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
else:
    compute()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
@pytest.mark.slow
def test_kept_memory_is_not_faulted_in_again() -> None:
    numbers = "12_000_000"  # 48 MB, above the size that glibc ever keeps
    faults = {way: int(measured(MEASURE, way, numbers, "main")) for way in ("given back", "kept")}
    # the heap may still grow by a tensor where something small lies in the way
    assert faults["given back"] > 5 * faults["kept"], faults


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
@pytest.mark.slow
def test_memory_is_kept_in_threads_too() -> None:
    """Where a heap of the thread's own would go back whenever it is empty, with 3,906 pages."""
    assert int(measured(MEASURE, "kept", "4_000_000", "thread")) < 1000


SCOPED = """
import resource, sys
import torch
from restora.allocator import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

torch.ones(1)
before = resident()
with freed_memory_kept():
    with freed_memory_kept():
        torch.ones(50_000_000)  # 200 MB
    inside = resident()
print(inside - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
@pytest.mark.slow
def test_memory_is_given_back_at_the_end_of_the_outermost_block() -> None:
    answer = measured(SCOPED)
    inside, after = map(int, answer.split())
    assert inside > 150e6 > 50e6 > after, answer


HUGE = """
import torch
from restora.allocator import keep_freed_memory

keep_freed_memory()
x = torch.ones(50_000_000)  # 200 MB
with open("/proc/self/smaps_rollup") as file:
    print(next(line.split()[1] for line in file if line.startswith("AnonHugePages")))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
@pytest.mark.slow
def test_kept_memory_comes_in_huge_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    shown = Path("/proc/self/smaps_rollup")
    if not (setting.exists() and shown.exists()) or "[never]" in setting.read_text():
        pytest.skip("this kernel has no huge pages to give")
    answer = measured(HUGE)
    # how many the kernel finds depends on what else is in memory
    assert int(answer) >= 2048, answer
