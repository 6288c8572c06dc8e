"""Weir's server with first-come batching: the oldest requests, whatever their lengths.

    python -m benchmarks.rivals.first_come MODELS [any flag of weir serve]

This is the batching of a server that pads but ignores lengths. Nothing else differs from Weir.
"""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weir.server.scheduling.batching import BatchPolicy


def first_come(waiting: Collection[Any], policy: "BatchPolicy") -> list[Any]:
    """The oldest requests of one key, up to the row limit."""
    batch: list[Any] = []
    rows = 0
    for request in waiting:
        if batch and (request.key != batch[0].key or rows + request.rows > policy.max_rows):
            break
        batch.append(request)
        rows += request.rows
    return batch


def main() -> None:
    """Serve."""
    # As in `weir.server.__main__`: gRPC core reads it when it is first imported.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from weir.server import __main__ as server  # noqa: PLC0415 - see above
    from weir.server.scheduling import batching  # noqa: PLC0415

    # The server has no setting for this worse policy.
    batching.select = first_come
    server.main()


if __name__ == "__main__":
    main()
