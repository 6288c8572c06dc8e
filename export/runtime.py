"""ONNX Runtime on this machine's CPU, on which every graph is tried before it is published."""

import onnxruntime

from weir.export.errors import ExportError

VERSION: str = onnxruntime.__version__
_PROVIDERS = ["CPUExecutionProvider"]


def open_session(model: bytes, *, is_optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session as a server would have it, or one that runs the nodes one by one as they are.

    Raises:
        ExportError: ONNX Runtime took something else than the CPU.
    """
    options = onnxruntime.SessionOptions()
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=_PROVIDERS)
    if session.get_providers() != _PROVIDERS:
        raise ExportError(f"providers: expected {_PROVIDERS}, got {session.get_providers()}")
    return session
