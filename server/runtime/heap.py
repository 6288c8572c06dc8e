"""The C library's heap: what it keeps of freed memory, and what it returns to the system.

Everything here is without effect unless the C library is GNU's.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The most that the library takes.
_MMAP_BYTES = 32 * 1024 * 1024
_SMALL_MMAP_BYTES = 1024 * 1024
_TRIM_BYTES = 64 * 1024 * 1024


def keep_freed_memory(*, is_address_space_limited: bool = False) -> None:
    """Keep up to 64 MiB of freed memory in each arena of the heap, for the next message.

    By default the library returns the buffers of a message above a few hundred kilobytes as soon as
    they are freed, and each page of the next message's buffers is a page fault: 900 for a message
    of 1 MiB, which is two thirds of the server's CPU for it.

    With a limit of the address space (RLIMIT_AS), blocks above a mebibyte go back when they are
    freed: `trim` returns pages, but not their addresses, which the limit counts.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_M_MMAP_THRESHOLD, _SMALL_MMAP_BYTES if is_address_space_limited else _MMAP_BYTES)
        option(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def trim() -> None:
    """Return freed memory to the system.

    The weights of an unloaded version lie between small blocks that stay, and the library keeps
    such gaps. Another way is to have it take all large blocks from the system by itself
    (`mallopt`), but then each run of a model without an arena takes a quarter more time.
    """
    option = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if option is not None:
        option(0)
