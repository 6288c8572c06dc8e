"""For all tests: one thread per process for torch, because pytest-xdist uses every core already."""

import os

# Read when torch is imported. Two workers with two threads each take twice as long on two cores:
# the threads of a small operation wait for each other without yielding the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
