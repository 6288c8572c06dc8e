"""Session: a loaded graph in ONNX Runtime. No other module imports ONNX Runtime.

Rules:
- The requested provider runs the graph, or loading fails: ONNX Runtime itself falls back to the CPU
  without a message.
- A graph's types are translated once, at load; the rest of the server sees the protocol's names.
- Other models serve while a graph is loaded, so the GIL is not held meanwhile.
- A graph's outputs that are no tensors are not served, and not requested from a run.
- A run fails as the client's only where a node refuses the input's shapes or values. Every failure
  that is not known as such is the server's.
"""

import copy
import ctypes
import logging
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from weir.bundle import graph_nodes
from weir.bundle.escaping import short_repr
from weir.bundle.external_data import ExternalTensor
from weir.bundle.protobuf_wire import MalformedError
from weir.protocol.datatypes import BY_ONNX
from weir.server import threads
from weir.server.errors import (
    InvalidRequest,
    ModelLoadError,
    OutOfMemory,
    ProviderMissing,
    ServerError,
    Unsupported,
)
from weir.server.runtime import custom_operators, graph_guards, reshape
from weir.server.runtime.io_binding import BoundOutputs, DeviceTensor
from weir.server.runtime.signature import MAX_RANK, MAX_TENSORS, Axis, TensorSpec

logger = logging.getLogger(__name__)

Array = NDArray[Any]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ONNX_BF16 = 16
# Linux alone has both; a container may lack the second.
_HAS_MEMORY_FILES = hasattr(os, "memfd_create") and Path("/proc/self/fd").exists()
_SOURCE = re.compile(r"Load model from /proc/self/fd/\d+ failed: ?")
# The most that ONNX Runtime takes as a file in memory, for one tensor.
_MAX_COPIED = 1 << 31

# With TF32, ONNX Runtime's default, outputs differ from the CPU's by 1e-3; without it by 1e-6, and
# our models are no slower. With the default EXHAUSTIVE, each change of the batch size costs 600 to
# 900 ms for Inception v1 and 30 ms for LeNet-5: 23 calls/s with 32 in flight. HEURISTIC: 150 ms,
# 106 calls/s. DEFAULT: 50 ms, 268 calls/s, though a steady shape takes 3.1 ms instead of 1.5 to 2.0
# ms. Measured with ONNX Runtime 1.31.1 on an H100 80GB, driver 580.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}

# What ONNX Runtime writes in front of a node's own message; a node may have any name.
_NODE = re.compile(
    r"Non-zero status code returned while running \S+ node\. Name:'.*?' Status Message: ", re.DOTALL
)
_OUT_OF_MEMORY = re.compile(
    r"std::bad_alloc|bad allocation"
    r"|Failed to allocate memory for requested buffer of size \d+"
    r"|Available memory of \d+ is smaller than requested bytes of \d+"
    r"|array is too big"
    r"|CUDA failure 2: out of memory|CUDA out of memory|cudaErrorMemoryAllocation"
    r"|(CUDNN|CUBLAS|CUFFT)_(STATUS_)?ALLOC_FAILED"
)
# After these errors every call of CUDA fails until the process ends: uncorrectable memory (214), an
# illegal address (700), a launch that timed out or failed (702, 719), an assertion (710), and other
# errors of a kernel (714 to 718). ONNX Runtime names the GPU and the host behind it.
_DEVICE_LOST = re.compile(r"CUDA failure (214|70[02]|71[04-9]): [^;]*; GPU=-?\d+ ; hostname=")
_DEVICE_FAILED = re.compile(r"\b(CUDA|CUDNN|CUBLAS|CUFFT)[_ ](failure|error)", re.IGNORECASE)
# Words of the nodes that check their inputs: the broadcasting of Add, Reshape, MatMul, Concat,
# Split, TopK, GatherElements, integer Div and Mod, …; `sto…` is a Cast of a text that is no number.
_INPUT_REFUSED = re.compile(
    r"\b(axis|axes|batch size|broadcast(ed)?|by zero|channels|concatenate|dimensions?|elements"
    r"|empty|exceeds|expected|features|index|indices|integer overflow|(in|not )compatible"
    r"|inconsistent|IsScalarOr1ElementVector|match|mismatch(ed)?|(?<!attribute )must|negative"
    r"|num_?dim(ension)?s|only works on|out of bounds|out of range|rank|reshaped|same"
    r"|scale values?|shapes?|shape\.Size\(\)|should|size overflowed|smaller than|split"
    r"|sto[a-z]{1,3}|zero effective)\b"
    # ArgMax of nothing says nothing.
    r"|RUNTIME_EXCEPTION : \s*$",
    re.IGNORECASE,
)

# Names that keras2onnx, tf2onnx and onnxmltools give every axis of which they know nothing:
# axes of such a name need not have the same size.
_NO_SYMBOL = re.compile(r"|-1|\?|none|unk.*", re.IGNORECASE)

# Identity on one float, as ONNX: enough to see whether a provider starts.
_PROBE = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142040a001011"
)


class RunFailed(ServerError):
    """A run failed for a reason of the server's; its text is for the log, never for the wire."""


_ZIPMAP_HINT = (
    "skl2onnx and onnxmltools write a tensor with the option zipmap=False; `weir import` cuts "
    "ZipMap off a file"
)


def hint_for(onnx_type: str) -> str | None:
    """What to do about an output whose type is not served; None for any but ZipMap's."""
    return _ZIPMAP_HINT if onnx_type.startswith("seq(map(") else None


def version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def choose_provider(setting: str) -> str:
    """The provider to use for `auto`, `cpu` or `cuda`: `cpu` or `cuda`.

    Raises:
        ProviderMissing: the setting is `cuda`, which does not work here; the message says why.
    """
    if setting == "cpu":
        return "cpu"
    problem = _cuda_problem()
    if problem is None:
        return "cuda"
    if setting == "cuda":
        raise ProviderMissing(f"provider cuda: {problem}")
    return "cpu"


class RunStop:
    """Stops a run of a session between two nodes, from another thread."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def set(self) -> None:
        """Stop the run; it fails. A run that has not started fails when it starts."""
        self.options.terminate = True


class _Reshaped(NamedTuple):
    """The tensors with a `reshape`, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class Session:
    """A loaded graph. Any number of threads may run it at once.

    Attributes:
        inputs: that a run needs.
        outputs: of a run; those that are no tensors are not among them.
        defaults: inputs that a run may leave out, as the graph has an initializer for them.
        unserved: the outputs that are no tensors, with their types.

    Args:
        graph: the ONNX file's bytes.
        external: the initializers outside it, which are copied: the caller may free them then.
        threads: threads inside one operator.
        provider_options: of the provider cuda; the others are `CUDA_OPTIONS`.
        has_few_shapes: whether to remember the memory use of each shape of the inputs.
        operator_library: the path of a library of custom operators; None: ONNX Runtime's own alone.

    Raises:
        ModelLoadError: the graph does not load, or not on that provider.
        OutOfMemory: it needs more memory than there is.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        provider: str,
        threads: int,
        has_few_shapes: bool = True,
        external: Sequence[ExternalTensor] = (),
        operator_library: str | None = None,
        provider_options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        options = ort.SessionOptions()
        # Remembered shapes are never freed. A tagger took 55 MB over 10,000 batches of any size,
        # and was no faster; on a picture it saves one of 55 microseconds.
        options.enable_mem_pattern = has_few_shapes
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread takes the core that the transport needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Fatal errors only: a failed run raises, and a client's bad values are no line in the log.
        options.log_severity_level = 4
        try:
            _add_external(options, external)
            if operator_library is not None:
                options.register_custom_ops_library(operator_library)
            guarded = graph_guards.guard(graph)
            with _source(guarded.graph) as source:
                self._session = ort.InferenceSession(
                    source,
                    options,
                    providers=[PROVIDERS[provider]],
                    provider_options=[
                        {**CUDA_OPTIONS, **provider_options} if provider == "cuda" else {}
                    ],
                    enable_fallback=0,
                )
            without_shape = _without_shape(graph)
            self.inputs: Sequence[TensorSpec] = _specs(
                "input", self._session.get_inputs(), without_shape
            )
            served, self.unserved = _split_served(self._session.get_outputs())
            self.outputs: Sequence[TensorSpec] = _specs("output", served, without_shape)
            self.defaults: Sequence[TensorSpec] = _defaults(
                self._session.get_overridable_initializers(), without_shape
            )
        except ModelLoadError:
            raise
        except MalformedError as error:
            raise ModelLoadError(f"expected an ONNX file, got malformed bytes: {error}") from error
        except Exception as error:  # the runtime raises many unrelated classes
            if _OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory("the graph needs more memory than there is") from error
            reason = f"ONNX Runtime refuses the graph: {_first_line(error)}"
            if operator_library is None:
                reason = custom_operators.missing_operator(reason) or reason
            raise ModelLoadError(reason) from error
        if self._session.get_providers()[0] != PROVIDERS[provider]:
            raise ModelLoadError(
                f"expected provider {PROVIDERS[provider]}, ONNX Runtime took "
                f"{self._session.get_providers()[0]}"
            )
        self.provider = provider
        self._device_id = int(provider_options.get("device_id", 0)) if provider == "cuda" else 0
        self._output_names = [spec.name for spec in self.outputs]
        self._reshaped = _Reshaped({}, {})
        self._operators = guarded.operators
        self._takes_empty = self._may_be_empty()
        self._has_bf16 = any(
            spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs, *self.defaults)
        )

    def with_tensors(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        defaults: Sequence[TensorSpec],
    ) -> "Session":
        """The session with the tensors that requests have: other sizes, or a `reshape`."""
        session = copy.copy(self)
        session.inputs, session.outputs, session.defaults = inputs, outputs, defaults
        taken = (*inputs, *defaults)
        session._reshaped = _Reshaped(  # noqa: SLF001 - a copy of its own class
            {one.name: one for one in taken if one.reshape is not None},
            {one.name: one for one in outputs if one.reshape is not None},
        )
        session._takes_empty = session._may_be_empty()  # noqa: SLF001 - likewise
        return session

    def check_axes(self) -> None:
        """ModelLoadError if an input of any number of axes may end the process."""
        any_axes = self._with_any_axes()
        operators = sorted(self._operators & graph_guards.TRUST_AXES)
        if any_axes and operators:
            raise ModelLoadError(
                f"input {short_repr(any_axes[0])} has no shape, and operator {operators[0]} would "
                "end the server for some: expected a shape in the graph, or dims in config.pbtxt"
            )

    def _with_any_axes(self) -> list[str]:
        """The names of the inputs whose number of axes is free."""
        return [spec.name for spec in (*self.inputs, *self.defaults) if not spec.has_shape]

    def _may_be_empty(self) -> bool:
        """Whether an empty input does not end the process."""
        if self._operators & graph_guards.RECURRENT:
            return False
        return not (self._operators & graph_guards.CONCATENATIONS and self._with_any_axes())

    @property
    def has_loop(self) -> bool:
        """Whether a run may go on for ever: a `Loop` may count, or compare, what a client sent."""
        return "Loop" in self._operators

    def run(self, inputs: Mapping[str, Array], stop: RunStop | None = None) -> dict[str, Array]:
        """Every output for these inputs.

        Raises:
            InvalidRequest: the graph refuses the inputs' shapes or values.
            OutOfMemory: an allocation failed; the session stays usable.
            Unsupported: an output holds a string that ONNX Runtime's Python API cannot give.
            RunFailed: any other failure.
        """
        if not self._takes_empty:
            _refuse_empty(inputs)
        if self._reshaped.inputs:
            inputs = reshape.to_graph(self._reshaped.inputs, inputs)
        options = None if stop is None else stop.options
        try:
            if self._has_bf16:
                arrays = self._run_with_bf16(inputs, options)
            else:
                arrays = self._session.run(self._output_names, inputs, options)
        except Exception as error:  # the runtime raises many unrelated classes
            raise self._run_error(error) from error
        outputs = dict(zip(self._output_names, arrays, strict=True))
        if self._reshaped.outputs:
            try:
                return reshape.to_request(self._reshaped.outputs, outputs)
            except reshape.ShapeError as error:
                raise RunFailed(str(error)) from error
        return outputs

    @property
    def can_bind(self) -> bool:
        """Whether `run_bound` takes its tensors, which are plain numbers without a `reshape`."""
        datatypes = {spec.datatype for spec in (*self.inputs, *self.outputs, *self.defaults)}
        return not (datatypes & {"BF16", "BYTES"} or any(self._reshaped))

    def place(self, array: Array) -> DeviceTensor:
        """See `io_binding.Device`."""
        try:
            tensor: DeviceTensor = ort.OrtValue.ortvalue_from_numpy(
                array, self.provider, self._device_id
            )
        except Exception as error:  # the runtime raises many unrelated classes
            raise self._run_error(error) from error
        return tensor

    def run_bound(
        self, inputs: Mapping[str, Array | DeviceTensor], keep: Collection[str]
    ) -> BoundOutputs:
        """See `io_binding.Device`."""
        binding = self._session.io_binding()
        try:
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, value)
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in self._output_names:
                if name in keep:
                    binding.bind_output(name, self.provider, self._device_id)
                else:
                    binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
            values = dict(zip(self._output_names, binding.get_outputs(), strict=True))
            kept = {name: values.pop(name) for name in keep}
            arrays = {name: value.numpy() for name, value in values.items()}
        except Exception as error:  # the runtime raises many unrelated classes
            raise self._run_error(error) from error
        return BoundOutputs(arrays, kept)

    def _run_error(self, error: Exception) -> ServerError:
        """The failure of a run; does not return if it has taken the device from this process."""
        if self.provider == "cuda" and _DEVICE_LOST.search(str(error)):
            event = threads.last_event(
                "device lost provider=cuda exit_code=%d", threads.DEVICE_LOST, error=error
            )
            threads.end_process(threads.DEVICE_LOST, event)
        return _run_error(error)

    def _run_with_bf16(
        self, inputs: Mapping[str, Array], options: ort.RunOptions | None
    ) -> list[Array]:
        """Run with BF16 tensors, whose bits go in and come out as UINT16: numpy has no BF16."""
        values = {}
        datatypes = {spec.name: spec.datatype for spec in (*self.inputs, *self.defaults)}
        for name, value in inputs.items():
            array = np.asarray(value, order="C")
            values[name] = (
                ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BF16)
                if datatypes[name] == "BF16"
                else ort.OrtValue.ortvalue_from_numpy(array)
            )

        def bits(value: ort.OrtValue) -> Array:
            shape = value.shape()
            raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
            return np.frombuffer(raw, "<u2").reshape(shape)

        results = self._session.run_with_ort_values(self._output_names, values, options)
        return [
            bits(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(self.outputs, results, strict=True)
        ]


def _without_shape(graph: bytes) -> set[str]:
    """The names of the inputs and outputs that are declared without a shape."""
    try:
        return {name.decode() for name in graph_nodes.read(graph).graph.without_shape()}
    except (MalformedError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"expected an ONNX file, got malformed bytes: {error}") from error


def _refuse_empty(inputs: Mapping[str, Array]) -> None:
    for name, array in inputs.items():
        if not array.size:
            raise InvalidRequest(
                f"input {short_repr(name)}: expected 1 or more elements for this model, "
                f"got shape {list(array.shape)}"
            )


def _run_error(error: Exception) -> ServerError:
    """The failure of a run: the client's, a lack of memory, or the server's.

    ONNX Runtime gives input that a node refuses either of two codes. INVALID_ARGUMENT from a node
    always means its input. FAIL and RUNTIME_EXCEPTION mean anything, so the text decides.
    """
    if isinstance(error, UnicodeDecodeError):
        return Unsupported("the model's answer holds a string that is no valid UTF-8")
    message, nodes = _NODE.subn("", str(error))
    if _OUT_OF_MEMORY.search(message):
        return OutOfMemory("the run needs more memory than there is")
    if nodes and isinstance(error, InvalidArgument):
        return InvalidRequest("the model cannot compute with these values")
    is_of_a_node = nodes and isinstance(error, (Fail, RuntimeException))
    if is_of_a_node and _INPUT_REFUSED.search(message) and not _DEVICE_FAILED.search(message):
        logger.debug("run refused reason=%s", error)
        return InvalidRequest("the model cannot compute with these inputs")
    return RunFailed(str(error))


def _add_external(options: ort.SessionOptions, tensors: Sequence[ExternalTensor]) -> None:
    """Give ONNX Runtime initializers in memory, so that it opens no file.

    It copies them when it makes the session. A tensor of 2 GiB and more is a value: it takes no
    file in memory of that size for one tensor.
    """
    files = [tensor for tensor in tensors if len(tensor.data) < _MAX_COPIED]
    if files:
        options.add_external_initializers_from_files_in_memory(
            [tensor.location for tensor in files],
            [tensor.data for tensor in files],
            [len(tensor.data) for tensor in files],
        )
    values = [tensor for tensor in tensors if len(tensor.data) >= _MAX_COPIED]
    if values:
        options.add_external_initializers(
            [tensor.name for tensor in values], [_value(tensor) for tensor in values]
        )


def _value(tensor: ExternalTensor) -> ort.OrtValue:
    """The tensor as a value of ONNX Runtime, in the memory that it has."""
    bits = 8 * len(tensor.data) // math.prod(tensor.shape)
    if bits not in (8, 16, 32, 64):
        raise ModelLoadError(
            f"tensor {short_repr(tensor.name)}: expected less than 2 GiB of type "
            f"{tensor.data_type}, got {len(tensor.data)} bytes"
        )
    array = np.frombuffer(tensor.data, f"<u{bits // 8}").reshape(tensor.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)


@contextmanager
def _source(graph: bytes) -> Iterator[str | bytes]:
    """The source that ONNX Runtime loads: the path of a file in memory, where the system has those.

    It copies bytes under the GIL, 0.15 s for the 244 MB of AlexNet, and its Python class keeps them
    as long as the session lives. It reads a file without either.
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


def _split_served(outputs: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
    """The outputs that can be served, and the types of the others by name."""
    unserved = {node.name: str(node.type) for node in outputs if node.type not in BY_ONNX}
    if outputs and len(unserved) == len(outputs):
        raise ModelLoadError(_unserved("output", outputs[0]))
    return [node for node in outputs if node.name not in unserved], unserved


def _specs(what: str, nodes: Sequence[Any], without_shape: Collection[str]) -> list[TensorSpec]:
    if len(nodes) > MAX_TENSORS:
        raise ModelLoadError(f"expected at most {MAX_TENSORS} {what}s, got {len(nodes)}")
    for node in nodes:
        if node.type not in BY_ONNX:
            raise ModelLoadError(_unserved(what, node))
        if len(node.shape) > MAX_RANK:
            raise ModelLoadError(
                f"{what} {short_repr(node.name)}: expected at most {MAX_RANK} axes, "
                f"got {len(node.shape)}"
            )
    return [_spec(node, without_shape) for node in nodes]


def _defaults(nodes: Sequence[Any], without_shape: Collection[str]) -> list[TensorSpec]:
    """Inputs that have an initializer, which need not have the size of their symbols."""
    specs = [_spec(node, without_shape) for node in nodes if node.type in BY_ONNX]
    return [
        replace(spec, axes=tuple(axis if isinstance(axis, int) else None for axis in spec.axes))
        for spec in specs
        if len(spec.axes) <= MAX_RANK
    ]


def _spec(node: Any, without_shape: Collection[str]) -> TensorSpec:
    # ONNX Runtime gives a tensor without a shape, which may have any, the axes of a scalar.
    has_shape = bool(node.shape) or node.name not in without_shape
    datatype = BY_ONNX[node.type].name
    return TensorSpec(node.name, datatype, tuple(map(_axis, node.shape)), has_shape=has_shape)


def _unserved(what: str, node: Any) -> str:
    reason = f"{what} {short_repr(node.name)} has type {node.type}, which cannot be served"
    hint = hint_for(node.type)
    return reason if hint is None else f"{reason}; {hint}"


def _axis(axis: Any) -> Axis:
    """The axis of ONNX Runtime's dimension: a size, a symbol, or None (negative too)."""
    if isinstance(axis, int):
        return axis if axis >= 0 else None
    return None if axis is None or _NO_SYMBOL.fullmatch(axis) else str(axis)


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
