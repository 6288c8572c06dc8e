"""What the unmodified `tritonclient` sees of a decoupled model, as JSON on standard output.

A program of its own, as `triton_client.py` and for the same reason.
Each function below is one key of the result.

    python triton_generation.py HOST:PORT TOKENS
"""

import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-untyped]

# Only ever reached by a test that fails.
HANG_S = 20.0


def main(target: str, tokens: list[int]) -> None:
    checks: list[Callable[[Any, list[int]], Any]] = [
        decoupled, whole, streamed, with_empty_final, several, cancelled,
    ]  # fmt: skip
    found = {}
    for check in checks:
        with triton.InferenceServerClient(target) as client:
            found[check.__name__] = check(client, tokens)
    json.dump(found, sys.stdout)


def decoupled(client: Any, _tokens: list[int]) -> Any:
    return [
        client.get_model_config(name).config.model_transaction_policy.decoupled
        for name in ("pair", "pair.encoder")
    ]


def whole(client: Any, tokens: list[int]) -> Any:
    answer = client.infer("pair", inputs(tokens))
    return [answer.as_numpy(name).tolist() for name in ("output_tokens", "output_lengths")]


def streamed(client: Any, tokens: list[int]) -> Any:
    return stream(client, tokens)


def with_empty_final(client: Any, tokens: list[int]) -> Any:
    return stream(client, tokens, enable_empty_final_response=True)


def stream(client: Any, tokens: list[int], **options: Any) -> Any:
    """Tokens, count and final flag of each response."""
    heard = listen(client)
    client.async_stream_infer("pair", inputs(tokens), request_id="one", **options)
    told: list[Any] = []
    while not told or not told[-1][-1]:
        told.append(next_of(heard)[1:])
    client.stop_stream()
    assert heard.empty()
    return told


def several(client: Any, tokens: list[int]) -> Any:
    """The tokens of each of five requests that share a stream."""
    heard = listen(client)
    for number in range(5):
        client.async_stream_infer("pair", inputs(tokens), request_id=str(number))
    told: dict[str, list[int]] = {str(number): [] for number in range(5)}
    open_requests = len(told)
    while open_requests:
        request_id, own, _, is_final = next_of(heard)
        told[request_id] += own
        open_requests -= is_final
    client.stop_stream()
    return told


def cancelled(client: Any, _tokens: list[int]) -> Any:
    """An answer without end, given up after its first tokens."""
    heard = listen(client)
    client.async_stream_infer("endless", inputs([9]), request_id="endless")
    told = [next_of(heard)[1:] for _ in range(3)]
    client.stop_stream(cancel_requests=True)
    return told


def listen(client: Any) -> "queue.Queue[tuple[Any, Any]]":
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: heard.put((result, error)))
    return heard


def next_of(heard: "queue.Queue[tuple[Any, Any]]") -> list[Any]:
    """Id, tokens, count and final flag of the next response."""
    result, error = heard.get(timeout=HANG_S)
    assert error is None, error
    response = result.get_response()
    return [
        response.id,
        result.as_numpy("output_tokens")[0].tolist(),
        result.as_numpy("output_lengths").tolist(),
        response.parameters["triton_final_response"].bool_param,
    ]


def inputs(tokens: list[int]) -> list[Any]:
    tensor = triton.InferInput("tokens", [1, len(tokens)], "INT64")
    tensor.set_data_from_numpy(np.array([tokens], np.int64))
    return [tensor]


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
