"""For all tests: one thread per process for torch, because pytest-xdist uses every core already."""

import os

import pytest

# Read when torch is imported. Two workers with two threads each take twice as long on two cores:
# the threads of a small operation wait for each other without yielding the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accept the setting `timeout` on a machine without pytest-timeout, where it has no effect."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds for each test, by pytest-timeout")
