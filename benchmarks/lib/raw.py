"""Raw ONNX Runtime: its speed, and its outputs as the reference of a server's answers."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.lib.servers import Server
from weir import Client

_TOLERANCE = 1e-5


def raw_session(graph: Path, threads: int) -> ort.InferenceSession:
    """A session of raw ONNX Runtime with the options of `weir.server.runtime.session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def speed(
    session: ort.InferenceSession, inputs: Mapping[str, NDArray[Any]], rows: int, seconds: float
) -> dict[str, float]:
    """Rows and CPU time of one batch, run repeatedly after one unmeasured run."""
    session.run(None, inputs)
    runs, cpu_s, started_s = 0, time.process_time(), time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds or not runs:
        session.run(None, inputs)
        runs += 1
    cpu_us = (time.process_time() - cpu_s) / (runs * rows) * 1e6
    return {"rows_per_s": runs * rows / elapsed_s, "cpu_us": cpu_us, "mean_batch_rows": rows}


def check_answers(
    server: Server, model: str, graph: Path, requests: Sequence[Mapping[str, NDArray[Any]]]
) -> None:
    """Compare a server's answers to single requests with raw ONNX Runtime; exit if they differ."""
    session = raw_session(graph, threads=1)
    names = [each.name for each in session.get_outputs()]
    shapes = {each.name: len(each.shape) for each in session.get_inputs()}
    with Client(server.target) as client:
        for request in requests:
            outputs = client.infer(model, request)
            inputs = {
                name: array.reshape(array.shape[: shapes[name]]) for name, array in request.items()
            }
            for name, expected in zip(names, session.run(names, inputs), strict=True):
                if not are_close(outputs[name], expected):
                    sys.exit(
                        f"{server.target}: {model}: {name}: "
                        f"expected {expected}, got {outputs[name]}"
                    )


def are_close(got: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether an output has the expected shape and values, to 1e-5."""
    return got.shape == expected.shape and bool(
        np.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
    )
