"""What a stream was given to send and its caller has not taken.

An answer of many tokens goes on whether anybody reads it or not. Without a bound, a caller who never reads would fill
the memory.
"""

import threading

from weir.server.errors import ClientTooSlow
from weir.server.transport.base import Call

# As many as 128 requests, all that a stream may have open, make of 512 tokens each: some 20 MB.
MOST_UNREAD = 65_536


class Unread:
    """Sends the tokens of a stream, as long as they are read.

    Args:
        call: the stream.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._count = 0

    def send(self, message: bytes) -> None:
        """Queue one more; from any thread.

        Raises:
            ClientTooSlow: too many wait already.
        """
        with self._lock:
            if self._count >= MOST_UNREAD:
                raise ClientTooSlow(f"{self._count} tokens of this stream wait to be read")
            self._count += 1
        self._call.send(message, self._was_taken)

    def _was_taken(self) -> None:
        with self._lock:
            self._count -= 1
