import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from weir.server.repository.model_manager import trim_heap

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
# After the first is freed, the next of its size lies in the heap, below a small one that stays.
library.free(library.malloc(8 << 20))
block, small = library.malloc(8 << 20), library.malloc(64 << 10)
ctypes.memset(block, 1, 8 << 20)
library.free(block)
before = resident_bytes()
trim_heap()
print(before - resident_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
def test_gap_below_something_that_stays_is_given_back() -> None:
    given_back = int(subprocess.check_output([sys.executable, "-c", PROGRAM], text=True))

    assert given_back > 7 << 20
