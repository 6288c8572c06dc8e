"""Answer check: a server is measured only if its answers equal raw ONNX Runtime."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.machine import raw_session
from benchmarks.lib.servers import Server
from weir import Client

_TOLERANCE = 1e-5


def check_answers(
    server: Server, model: str, graph: Path, requests: Sequence[Mapping[str, NDArray[Any]]]
) -> None:
    """Compare a server's answers, one request at a time, with raw ONNX Runtime.

    Raises:
        SystemExit: they differ.
    """
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
                if not _are_close(outputs[name], expected):
                    sys.exit(
                        f"{server.target}: {model}: {name}: "
                        f"expected {expected}, got {outputs[name]}"
                    )


def _are_close(got: NDArray[Any], expected: NDArray[Any]) -> bool:
    return got.shape == expected.shape and bool(
        np.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
    )
