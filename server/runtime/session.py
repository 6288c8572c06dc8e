"""ONNX Runtime behind one small face. No other module imports it.

Rules:
- The provider that was asked for is the one that runs, or loading fails: ONNX Runtime itself would
  go on with the CPU without a word.
- A graph's types are translated once, at load; the rest of the server sees the protocol's names.
- Others serve while a graph is loaded, so Python's GIL is not held meanwhile.
"""

import ctypes
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    RuntimeException,
)

from weir.protocol.datatypes import BY_ONNX
from weir.server.errors import (
    InvalidRequest,
    ModelLoadError,
    OutOfMemory,
    ProviderMissing,
    ServerError,
)
from weir.server.runtime.signature import Axis, TensorSpec

logger = logging.getLogger(__name__)

Array = NDArray[Any]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ONNX_BF16 = 16
# Linux alone has both; a container may lack the second.
_HAS_MEMORY_FILES = hasattr(os, "memfd_create") and Path("/proc/self/fd").exists()
_SOURCE = re.compile(r"Load model from /proc/self/fd/\d+ failed: ?")
# More do not fit into a request (`guard`), and a run of a hundred thousand takes minutes.
_MOST_TENSORS = 1024
_OUT_OF_MEMORY = re.compile(r"alloc|out of memory|bad_alloc", re.IGNORECASE)
# At load a refusal may tell names of the graph.
_NO_MEMORY = re.compile(r"bad[_ ]alloc|failed to allocate memory|out of memory", re.IGNORECASE)

# Identity on one float, as ONNX: enough to see whether a provider starts.
_PROBE = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142040a001011"
)


class RunFailed(ServerError):
    """The runtime refused a run; its text is for the log, never for the wire."""


def version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def choose_provider(wanted: str) -> str:
    """The provider to use for `auto`, `cpu` or `cuda`: `cpu` or `cuda`.

    Raises:
        ProviderMissing: `cuda` was asked for and does not work here; the message says why.
    """
    if wanted == "cpu":
        return "cpu"
    problem = _cuda_problem()
    if problem is None:
        return "cuda"
    if wanted == "cuda":
        raise ProviderMissing(f"provider cuda: {problem}")
    return "cpu"


class Session:
    """A loaded graph. Any number of threads may run it at once.

    Args:
        graph: the ONNX file's bytes, weights inside.
        provider: `cpu` or `cuda`.
        threads: threads inside one operator.
        has_few_shapes: whether it is worth remembering how each shape of the inputs used memory.

    Raises:
        ModelLoadError: the graph does not load, or not on that provider.
        OutOfMemory: it would take more memory than there is.
    """

    def __init__(
        self, graph: bytes, *, provider: str, threads: int, has_few_shapes: bool = True
    ) -> None:
        options = ort.SessionOptions()
        # What is remembered is never forgotten. Of a tagger it took 55 MB over 10,000 batches of any size,
        # and is no faster; on a picture it saves one of 55 microseconds.
        options.enable_mem_pattern = has_few_shapes
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread would take the core the transport needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Only what ends the process: a run that fails is told by its exception, and by whom it
        # concerns; a client's bad values are no line in the log.
        options.log_severity_level = 4
        try:
            with _source(graph) as source:
                self._session = ort.InferenceSession(
                    source, options, providers=[PROVIDERS[provider]], enable_fallback=0
                )
            self.inputs = _specs("inputs", self._session.get_inputs())
            self.outputs = _specs("outputs", self._session.get_outputs())
        except ModelLoadError:
            raise
        except Exception as error:  # the runtime raises many unrelated classes
            if _NO_MEMORY.search(str(error)):
                raise OutOfMemory("the graph needs more memory than there is") from error
            raise ModelLoadError(f"ONNX Runtime refuses the graph: {_first_line(error)}") from error
        if self._session.get_providers()[0] != PROVIDERS[provider]:
            raise ModelLoadError(
                f"expected provider {PROVIDERS[provider]}, ONNX Runtime took "
                f"{self._session.get_providers()[0]}"
            )
        self.provider = provider
        self._output_names = [spec.name for spec in self.outputs]
        self._has_bf16 = any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output for these inputs.

        Raises:
            InvalidRequest: the graph refuses the values.
            OutOfMemory: an allocation failed; the session stays usable.
            RunFailed: anything else that goes wrong on another provider than the CPU.
        """
        try:
            if self._has_bf16:
                arrays = self._run_with_bf16(inputs)
            else:
                arrays = self._session.run(self._output_names, inputs)
        except InvalidArgument as error:
            # The shapes were checked before, so it is the values: an index out of range, say.
            raise InvalidRequest("the model cannot compute with these values") from error
        except Exception as error:  # the runtime raises many unrelated classes
            if _OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory("the run needs more memory than there is") from error
            if self.provider == "cpu" and isinstance(error, (Fail, RuntimeException)):
                # A model that ran when it was loaded, on a provider that does not break: so it is
                # these inputs, whose shapes do not go together inside the graph.
                logger.debug("run refused reason=%s", error)
                raise InvalidRequest("the model cannot compute with these inputs") from error
            raise RunFailed(str(error)) from error
        return dict(zip(self._output_names, arrays, strict=True))

    def _run_with_bf16(self, inputs: Mapping[str, Array]) -> list[Array]:
        """numpy has no BF16: its bits go in and come out as UINT16."""
        values = {}
        for spec in self.inputs:
            array = np.asarray(inputs[spec.name], order="C")
            values[spec.name] = (
                ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BF16)
                if spec.datatype == "BF16"
                else ort.OrtValue.ortvalue_from_numpy(array)
            )
        results = self._session.run_with_ort_values(self._output_names, values)
        return [
            _bits(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(self.outputs, results, strict=True)
        ]


@contextmanager
def _source(graph: bytes) -> Iterator[str | bytes]:
    """What ONNX Runtime is given to load: where there is such a thing, the path of a file in memory.

    Bytes it copies under the GIL, 0.15 s for the 244 MB of AlexNet, and its Python class keeps them as long
    as the session lives. A file it reads without either.
    """
    if not _HAS_MEMORY_FILES:
        yield graph
        return
    try:
        file = os.fdopen(os.memfd_create("graph"), "wb")
    except OSError:  # not every sandbox has the call
        yield graph
        return
    with file:
        file.write(graph)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _bits(value: ort.OrtValue) -> Array:
    shape = value.shape()
    count = int(np.prod(shape))
    raw = ctypes.string_at(value.data_ptr(), count * 2)
    return np.frombuffer(raw, "<u2").reshape(shape)


def _specs(what: str, nodes: Sequence[Any]) -> list[TensorSpec]:
    if len(nodes) > _MOST_TENSORS:
        raise ModelLoadError(f"expected at most {_MOST_TENSORS} {what}, got {len(nodes)}")
    return [_spec(node) for node in nodes]


def _spec(node: Any) -> TensorSpec:
    row = BY_ONNX.get(node.type)
    if row is None:
        raise ModelLoadError(f"tensor {node.name!r} has type {node.type}, which cannot be served")
    return TensorSpec(node.name, row.name, tuple(_axis(axis) for axis in node.shape))


def _axis(axis: Any) -> Axis:
    """A dimension as ONNX Runtime tells it: a size, a symbol, or None (also negative, or empty)."""
    if isinstance(axis, int):
        return axis if axis >= 0 else None
    return str(axis) if axis else None


def _cuda_problem() -> str | None:
    """Why CUDA cannot be used, or None if a session starts on it."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this build of ONNX Runtime has no CUDA provider (install onnxruntime-gpu)"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "no CUDA driver is installed on this machine"
    count = ctypes.c_int()
    if (
        driver.cuInit(0) != 0
        or driver.cuDeviceGetCount(ctypes.byref(count)) != 0
        or not count.value
    ):
        return "the CUDA driver finds no device"
    try:
        Session(_PROBE, provider="cuda", threads=1)
    except (ModelLoadError, OutOfMemory) as error:
        return f"{error} (are the CUDA and cuDNN libraries of onnxruntime-gpu installed?)"
    return None


def _first_line(error: Exception) -> str:
    text = _SOURCE.sub("", str(error)).strip()
    return (text or type(error).__name__).splitlines()[0][:500]
