"""How busy the I/O thread is, and how long an event waits for it."""

import threading
import time
from typing import Any

MOST_DELAY_S = 0.2
"""A measurement waits no longer, and tells this much."""


class IoWatch:
    """Written by the I/O thread, read by whoever scrapes.

    Attributes:
        busy_s: that the thread did not wait for an event.
        latest: gRPC core's call that came last, while it is open.
    """

    __slots__ = ("busy_s", "latest")

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.latest: Any = None

    def delay_s(self) -> float:
        """How long an event takes to reach the thread now; 0 while no call is open, which it would have to wait for.

        An empty batch of operations is put on an open call: core ends it at once, and its event stands in the
        same queue as all others.
        """
        call = self.latest
        if call is None:
            return 0.0
        arrived_s: list[float] = []
        arrived = threading.Event()

        def tag(_event: Any) -> None:
            arrived_s.append(time.monotonic())
            arrived.set()

        sent_s = time.monotonic()
        try:
            call.start_server_batch((), tag)
        except Exception:  # noqa: BLE001 - the server is stopping, and its queue takes no more
            return 0.0
        return arrived_s[0] - sent_s if arrived.wait(MOST_DELAY_S) else MOST_DELAY_S
