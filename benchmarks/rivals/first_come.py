"""Weir's server with first-come batching: the oldest requests, whatever their lengths.

    python -m benchmarks.rivals.first_come MODELS [any flag of weir serve]

This is the batching of a server that pads but ignores lengths. Nothing else differs from Weir.
"""

from collections.abc import Iterable
from typing import Any

from weir.server import __main__ as server
from weir.server.scheduling import batching


def first_come(waiting: Iterable[Any], policy: batching.BatchPolicy) -> list[Any]:
    """The oldest requests of one key, up to the row limit."""
    batch: list[Any] = []
    rows = 0
    for request in waiting:
        if batch and (request.key != batch[0].key or rows + request.rows > policy.max_rows):
            break
        batch.append(request)
        rows += request.rows
    return batch


if __name__ == "__main__":
    # The server has no setting for this worse policy.
    batching.select = first_come
    server.main()
