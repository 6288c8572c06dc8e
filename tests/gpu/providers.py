"""The providers under test, as parameters."""

import pytest

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
"""Runs in `make test-gpu` only."""
