"""Backpressure of a stream: a bound on the messages that its client has not read yet.

A generated text goes on at the model's pace, not at the client's. Without a bound, a client that
reads nothing fills the server's memory.
"""

import threading

from weir.server.errors import ClientTooSlow
from weir.server.transport.base import Call

# A stream may have 128 open requests; at 512 tokens each they send as many messages, some 20 MB.
MAX_UNREAD_MESSAGES = 65_536


class BoundedSender:
    """Sends messages on a stream while its client reads them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._unread = 0

    def send(self, message: bytes) -> None:
        """Queue a message; from any thread.

        Raises:
            ClientTooSlow: `MAX_UNREAD_MESSAGES` are queued already.
        """
        with self._lock:
            if self._unread >= MAX_UNREAD_MESSAGES:
                raise ClientTooSlow(f"{self._unread} messages of this stream wait to be read")
            self._unread += 1
        self._call.send(message, self._sent)

    def _sent(self) -> None:
        with self._lock:
            self._unread -= 1
