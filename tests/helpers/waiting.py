"""Waiting for a condition that nothing announces."""

import time
from collections.abc import Callable

LIMIT_S = 60.0
"""Limit of a wait, on a busy machine."""


def wait_until(is_true: Callable[[], bool], otherwise: str, limit_s: float = LIMIT_S) -> None:
    """Poll until the condition holds; fail the test with a message after the limit."""
    end_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < end_s, otherwise
        time.sleep(0.01)
