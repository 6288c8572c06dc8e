"""The health of a service as it changes."""

from collections.abc import Generator

import grpc

from weir.client import calls, errors


def watch(
    channel: grpc.Channel,
    service: str,
    *,
    timeout_s: float | None,
    metadata: tuple[tuple[str, str], ...],
) -> Generator[str, None, None]:
    """Yield the status now and at each change, until the server closes the stream."""
    method: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(calls.WATCH)
    call = method(
        calls.health_request(service), timeout=timeout_s, metadata=metadata, wait_for_ready=True
    )
    try:
        for body in call:
            yield calls.read_health(body)
    except grpc.RpcError as error:
        raise errors.from_failure(error) from error
    finally:
        call.cancel()
