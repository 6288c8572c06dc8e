"""ONNX Runtime sessions on the CPU, which run every graph before it is published."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from weir.export.errors import ExportError

VERSION: str = onnxruntime.__version__
_PROVIDERS = ["CPUExecutionProvider"]


def open_session(model: bytes, *, is_optimised: bool = True) -> onnxruntime.InferenceSession:
    """Open a session on the CPU as the server does, or one without graph optimisation."""
    options = onnxruntime.SessionOptions()
    # Fatal errors only: what fails raises, and warnings of the optimiser concern no user.
    options.log_severity_level = 4
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=_PROVIDERS)
    if session.get_providers() != _PROVIDERS:
        raise ExportError(f"providers: expected {_PROVIDERS}, got {session.get_providers()}")
    return session


def run(
    session: onnxruntime.InferenceSession,
    outputs: Iterable[str],
    inputs: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Run a session and return its outputs by name."""
    names = list(outputs)
    return dict(zip(names, map(np.asarray, session.run(names, dict(inputs))), strict=True))
