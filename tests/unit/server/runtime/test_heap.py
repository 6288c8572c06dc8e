import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only the GNU C library has these options"
)

# In a process of its own each: the options hold for a whole process.
_LIBRARY = """
import ctypes, resource
from weir.server.runtime import heap

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
"""
_TRIM = """
def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

# After the first is freed, the next of its size lies in the heap, below a small one that stays.
library.free(library.malloc(8 << 20))
block, small = library.malloc(8 << 20), library.malloc(64 << 10)
ctypes.memset(block, 1, 8 << 20)
library.free(block)
before = resident_bytes()
heap.trim()
print(before - resident_bytes())
"""
_KEEP = """
def use():
    blocks = [library.malloc(1 << 20) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    for block in blocks:
        library.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

use()
by_default = faults()
heap.keep_freed_memory()
use()
print(by_default, faults())
"""


def run(program: str) -> list[int]:
    printed = subprocess.check_output([sys.executable, "-c", _LIBRARY + program], text=True)
    return [int(word) for word in printed.split()]


def test_trim_returns_a_gap_below_a_block_that_stays() -> None:
    (given_back,) = run(_TRIM)

    assert given_back > 7 << 20


def test_trim_returns_memory_that_is_kept() -> None:
    (given_back,) = run("heap.keep_freed_memory()\n" + _TRIM)

    assert given_back > 7 << 20


def test_kept_memory_costs_no_page_faults() -> None:
    # Ten uses of 4 MiB are 10,240 pages.
    by_default, kept = run(_KEEP)

    assert by_default > 1000 and kept < 100
