"""Memory that was freed, given back to the system, where the C library is GNU's.

The weights of a version that left lay between small things that stay, and the library keeps such gaps. To have
it take all that is large from the system by itself (`mallopt`) gives them back as well, but takes a quarter more time
for each run of a model that has no arena.
"""

import ctypes


def give_back() -> None:
    """Every whole page that nobody uses; without effect where the library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
