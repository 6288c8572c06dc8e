"""Weir's server with first-come batches: whoever waits longest, however long their sentences.

    python -m benchmarks.rivals.first_come MODELS [any flag of weir serve]

What a server does that pads but does not look at lengths. Only this differs from Weir.
"""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weir.server.scheduling.batching import BatchPolicy


def first_come(waiting: Collection[Any], policy: "BatchPolicy") -> list[Any]:
    """The oldest requests of one key, up to the most rows."""
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
    # As `weir.server.__main__` has it: read by gRPC core when it is first imported.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from weir.server import __main__ as server  # noqa: PLC0415 - see above
    from weir.server.scheduling import batching  # noqa: PLC0415

    # There is no setting for it: nobody should want it.
    batching.select = first_come
    server.main()


if __name__ == "__main__":
    main()
