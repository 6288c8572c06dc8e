"""What the unmodified `tritonclient` sees of a server, as JSON on standard output.

A program of its own: the protocol's package can be registered once in a process, and the tests'
process has registered ours. Each function below is one key of the result.

    python triton_client.py HOST:PORT
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False, False, True]]),
    "UINT8": np.array([[0, 1, 128, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 2**15, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 1, 2**31, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**63, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, -1, 0, 127]], np.int8),
    "INT16": np.array([[-(2**15), -1, 0, 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), -1, 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), -1, 0, 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -2.0, 65504.0, np.inf]], np.float16),
    "FP32": np.array([[0.1, -2.0, 3.4e38, np.inf]], np.float32),
    "FP64": np.array([[0.1, -2.0, 1.7e308, np.inf]], np.float64),
    "BF16": np.array([[0.5, -2.0, 1.7e38, np.inf]], ml_dtypes.bfloat16),
    "BYTES": np.array([["weir", "", "größer", "x" * 1000]], object),
}

# Only ever reached by a test that fails.
HANG_S = 20.0


def main(target: str) -> None:
    checks: list[Callable[[triton.InferenceServerClient], Any]] = [
        states, metadata, config, index, datatypes, several, requested, rows_or_none, asynchronous,
        cancelled, stream, classification, refused, unsupported, statistics,
    ]  # fmt: skip
    with triton.InferenceServerClient(target) as client:
        json.dump({check.__name__: check(client) for check in checks}, sys.stdout)


def states(client: Any) -> Any:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "affine": client.is_model_ready("affine"),
        "affine 7": client.is_model_ready("affine", "7"),
        "broken": client.is_model_ready("broken"),
        "unknown": error_of(lambda: client.is_model_ready("unknown")),
        "affine 8": error_of(lambda: client.is_model_ready("affine", "8")),
    }


def metadata(client: Any) -> Any:
    return {
        "server": client.get_server_metadata(as_json=True),
        "arithmetic": client.get_model_metadata("arithmetic", as_json=True),
        "labelled": client.get_model_metadata("labelled", as_json=True),
        "broken": error_of(lambda: client.get_model_metadata("broken")),
    }


def config(client: Any) -> Any:
    return {
        name: client.get_model_config(name, as_json=True)["config"]
        for name in ("labelled", "patient", "without_rows")
    }


def index(client: Any) -> Any:
    return client.get_model_repository_index(as_json=True)["models"]


def datatypes(client: Any) -> Any:
    """Whether each datatype comes back as it went."""
    found = {}
    for datatype, values in VALUES.items():
        answer = client.infer(f"echo_{datatype}", [as_input("x", values, datatype)])
        actual = answer.as_numpy("y")
        expected = values
        if datatype == "BYTES":
            expected = np.array([[text.encode() for text in row] for row in values], object)
        found[datatype] = {
            "datatype": answer.get_output("y").datatype,
            "dtype": str(actual.dtype),
            "same": actual.shape == expected.shape and bool((actual == expected).all()),
        }
    return found


def several(client: Any) -> Any:
    """A model of two inputs, named in the other order than the graph's."""
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    answer = client.infer(
        "arithmetic", [as_input("b", b), as_input("a", a)], request_id="one", model_version="7"
    )
    response = answer.get_response()
    return {
        "model": [response.model_name, response.model_version, response.id],
        "sum": answer.as_numpy("sum").tolist(),
        "product": answer.as_numpy("product").tolist(),
    }


def requested(client: Any) -> Any:
    a = np.ones((1, 3), np.float32)
    inputs = [as_input("a", a), as_input("b", a)]
    outputs = [triton.InferRequestedOutput("product")]
    answer = client.infer("arithmetic", inputs, outputs=outputs)
    return [output.name for output in answer.get_response().outputs]


def rows_or_none(client: Any) -> Any:
    """A model without a batch axis, and one with axes of any size."""
    total = client.infer("without_rows", [as_input("x", np.ones((5, 2), np.float32))])
    free = client.infer("free", [as_input("x", np.ones((3, 9), np.float32))])
    return [total.as_numpy("y").tolist(), free.as_numpy("y").shape]


def asynchronous(client: Any) -> Any:
    answers: dict[str, Any] = {}
    is_done = threading.Semaphore(0)

    def answered(key: str, result: Any, error: Any) -> None:
        answers[key] = error_fields(error) if error else result.as_numpy("y").tolist()
        is_done.release()

    for number in range(8):
        values = np.full((1, 4), number, np.float32)
        client.async_infer(
            "affine",
            [as_input("x", values)],
            lambda result, error, key=str(number): answered(key, result, error),
        )
    client.async_infer(
        "unknown",
        [as_input("x", values)],
        lambda result, error: answered("unknown", result, error),
    )
    for _ in range(9):
        assert is_done.acquire(timeout=30)
    return answers


def cancelled(client: Any) -> Any:
    """A request that would wait for ever, given up."""
    errors: list[Any] = []
    is_done = threading.Event()

    def answered(result: Any, error: Any) -> None:
        errors.append(error_fields(error))
        is_done.set()

    values = np.zeros((1, 4), np.float32)
    call = client.async_infer("patient", [as_input("x", values)], answered)
    call.cancel()
    assert is_done.wait(30)
    return errors


def stream(client: Any) -> Any:
    """Five requests of which one is wrong: each is answered under its id, in whatever order."""
    answers: dict[str, Any] = {}
    is_done = threading.Semaphore(0)

    def answered(result: Any, error: Any) -> None:
        if error:
            answers["error"] = error_fields(error)
        else:
            answers[result.get_response().id] = result.as_numpy("y").tolist()
        is_done.release()

    client.start_stream(answered)
    for number in range(5):
        width = 3 if number == 2 else 4
        values = np.full((1, width), number, np.float32)
        client.async_stream_infer("affine", [as_input("x", values)], request_id=f"id {number}")
    for _ in range(5):
        assert is_done.acquire(timeout=30)
    client.stop_stream()
    return answers


def classification(client: Any) -> Any:
    values = np.array([[3, 1, 4, 1.5], [0, 1, 0, 0]], np.float32)
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    found = {}
    for name in ("labelled", "affine"):
        answer = client.infer(name, [as_input("x", values)], outputs=outputs)
        rows = answer.as_numpy("y").tolist()
        found[name] = [[text.decode() for text in row] for row in rows]
    return found


def refused(client: Any) -> Any:
    good = np.zeros((1, 4), np.float32)
    requests: dict[str, Callable[[], Any]] = {
        "datatype": lambda: client.infer("affine", [as_input("x", good.astype(np.float64))]),
        "shape": lambda: client.infer("affine", [as_input("x", np.zeros((1, 5), np.float32))]),
        "name": lambda: client.infer("affine", [as_input("z", good)]),
        "rows": lambda: client.infer("affine", [as_input("x", np.zeros((33, 4), np.float32))]),
        "missing": lambda: client.infer("arithmetic", [as_input("a", np.zeros((1, 3), "f4"))]),
        "output": lambda: client.infer(
            "affine", [as_input("x", good)], outputs=[triton.InferRequestedOutput("nothing")]
        ),
        "model": lambda: client.infer("unknown", [as_input("x", good)]),
        "version": lambda: client.infer("affine", [as_input("x", good)], model_version="8"),
        "broken": lambda: client.infer("broken", [as_input("x", good)]),
        "sequence": lambda: client.infer(
            "affine", [as_input("x", good)], sequence_id=5, sequence_start=True
        ),
        "late": lambda: client.infer("patient", [as_input("x", good)], timeout=1),
    }
    return {name: error_of(request) for name, request in requests.items()}


def unsupported(client: Any) -> Any:
    calls: dict[str, Callable[[], Any]] = {
        "load": lambda: client.load_model("affine"),
        "unload": lambda: client.unload_model("affine"),
        "system memory": client.get_system_shared_memory_status,
        "cuda memory": client.get_cuda_shared_memory_status,
        "register": lambda: client.register_system_shared_memory("a", "/a", 8),
        "trace": client.get_trace_settings,
        "log": client.get_log_settings,
    }
    return {name: error_of(call) for name, call in calls.items()}


def statistics(client: Any) -> Any:
    """How the counts change by three requests of two rows."""
    values = as_input("x", np.zeros((2, 4), np.float32))
    before = counts(client)
    for _ in range(3):
        client.infer("labelled", [values])
    after = counts(client)
    end_s = time.monotonic() + HANG_S
    # A batch is counted a moment after its answer was sent.
    while after["batches"] < before["batches"] + 3 and time.monotonic() < end_s:
        after = counts(client)
    everything = client.get_inference_statistics(as_json=True)["model_stats"]
    return {
        "change": {name: after[name] - before[name] for name in after},
        "models": [model["name"] for model in everything],
        "unknown": error_of(lambda: client.get_inference_statistics("unknown")),
    }


def counts(client: Any) -> dict[str, int]:
    statistics = client.get_inference_statistics("labelled").model_stats[0]
    stats = statistics.inference_stats
    return {
        "rows": statistics.inference_count,
        "batches": statistics.execution_count,
        "success": stats.success.count,
        "queue": stats.queue.count,
        "compute_infer": stats.compute_infer.count,
        "by size": sum(batch.compute_infer.count for batch in statistics.batch_stats),
    }


def as_input(name: str, values: Any, datatype: str | None = None) -> Any:
    kinds = {"float32": "FP32", "float64": "FP64"}
    tensor = triton.InferInput(name, values.shape, datatype or kinds[values.dtype.name])
    tensor.set_data_from_numpy(values)
    return tensor


def error_of(call: Callable[[], Any]) -> Any:
    try:
        call()
    except InferenceServerException as error:
        return error_fields(error)
    return "no error"


def error_fields(error: Any) -> list[str]:
    return [error.status() or "", error.message()]


if __name__ == "__main__":
    main(sys.argv[1])
