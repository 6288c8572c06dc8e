"""Ports for servers whose port must be known before they start."""

import errno
import random
import socket

# Below the range from which Linux takes ports for `bind(0)` and for outgoing connections, so the
# port stays free until the server starts, even with other tests in parallel.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that is free."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
