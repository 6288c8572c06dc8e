"""ONNX Runtime sessions on the CPU, which run every graph before it is published."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from weir.bundle.external_data import ExternalTensor, resolve
from weir.export.errors import ExportError

VERSION: str = onnxruntime.__version__

# The code and the place in its own source that ONNX Runtime writes in front of a reason.
_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : "
    r"|/onnxruntime_src/\S+ .*?\)( const)? (.*? was false\. )?"
)
_MOST_CHARACTERS = 300
_PROVIDERS = ["CPUExecutionProvider"]


def open_session(
    model: bytes,
    *,
    is_optimised: bool = True,
    threads: int = 0,
    external_data: Mapping[str, bytes] = MappingProxyType({}),
) -> onnxruntime.InferenceSession:
    """Open a session on the CPU as the server does, or one without graph optimisation.

    Args:
        threads: within an operator; 0: one for each core.
        external_data: the files beside the graph, by name.
    """
    options = onnxruntime.SessionOptions()
    # Fatal errors only: what fails raises, and warnings of the optimiser concern no user.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = resolve(model, external_data.__getitem__)
    if graph.external:
        options.add_external_initializers(
            [tensor.name for tensor in graph.external], [_value(each) for each in graph.external]
        )
    session = onnxruntime.InferenceSession(graph.model, options, providers=_PROVIDERS)
    if session.get_providers() != _PROVIDERS:
        raise ExportError(f"providers: expected {_PROVIDERS}, got {session.get_providers()}")
    return session


def _value(tensor: ExternalTensor) -> onnxruntime.OrtValue:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array = np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def run(
    session: onnxruntime.InferenceSession,
    outputs: Iterable[str],
    inputs: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Run a session and return its outputs by name."""
    names = list(outputs)
    return dict(zip(names, map(np.asarray, session.run(names, dict(inputs))), strict=True))


def reason(error: Exception) -> str:
    """Why ONNX Runtime refuses a graph or a run, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return _PREFIX.sub("", text)[:_MOST_CHARACTERS]
