"""Tests of the onnx package: small models with inputs.

ONNX Runtime is the oracle: what it answers to the inputs, bit for bit, or that it refuses them.
"""

import ctypes
import math
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from tests.integration.harness import DTYPE_NAMES, Tensor, tensor

Array = NDArray[Any]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
"""Of these, `node` has a model for each operator and its variants."""

_LIST = Path(__file__).parent / "unserved_node_tests.toml"
_BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class NodeTest:
    """A small model, and inputs for it by name; None if an input is no tensor."""

    name: str
    model: bytes
    inputs: Mapping[str, Array] | None


@dataclass(frozen=True, slots=True)
class Unserved:
    """Models that ONNX Runtime runs and the server does not serve.

    Attributes:
        names: a pattern of test names.
        message: a regular expression of what the server says.
    """

    names: str
    reason: str
    message: str


@cache
def node_tests() -> Sequence[NodeTest]:
    """The tests of the installed onnx package, by name."""
    with warnings.catch_warnings():
        # Some compute their expected values with overflows.
        warnings.simplefilter("ignore")
        cases = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    return sorted(map(_node_test, cases), key=lambda case: case.name)


def _node_test(case: Any) -> NodeTest:
    if case.model is not None:
        model, (values, _) = case.model, case.data_sets[0]
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        files = sorted((folder / "test_data_set_0").glob("input_*.pb"))
        values = [TensorProto.FromString(file.read_bytes()) for file in files]
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in initializers]
    inputs = None
    if len(names) == len(values) and all(map(_is_tensor, values)):
        inputs = {name: _array(value) for name, value in zip(names, values, strict=True)}
    return NodeTest(case.name, model.SerializeToString(), inputs)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, TensorProto))


def _array(value: Any) -> Array:
    """The array as the tests send it: texts are objects of bytes."""
    array = np.asarray(numpy_helper.to_array(value) if isinstance(value, TensorProto) else value)
    if array.dtype.kind not in "OU":
        return array.copy(order="C")
    texts = np.empty(array.size, object)
    texts[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.flat]
    return texts.reshape(array.shape)


def tensors(inputs: Mapping[str, Array]) -> list[Tensor] | None:
    """The inputs as tensors of a request; None if the protocol has no such datatype."""
    if not all(each.dtype.name in (*DTYPE_NAMES, _BFLOAT16) for each in inputs.values()):
        return None
    return [
        tensor(name, array, "BF16" if array.dtype.name == _BFLOAT16 else None)
        for name, array in inputs.items()
    ]


def session_of(case: NodeTest) -> ort.InferenceSession | None:
    """ONNX Runtime's session of the model; None if it refuses the model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - the runtime raises many unrelated classes
        return None


def answers(session: ort.InferenceSession, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
    """ONNX Runtime's own outputs, BF16 as its 16 bits; None if it refuses the inputs."""
    names = [output.name for output in session.get_outputs()]
    types = {value.type for value in (*session.get_inputs(), *session.get_outputs())}
    try:
        if "tensor(bfloat16)" in types:
            values = {name: _ort_value(array) for name, array in inputs.items()}
            outputs = map(_bits_or_numpy, session.run_with_ort_values(names, values))
        else:
            outputs = map(_array, session.run(names, {key: _texts(inputs[key]) for key in inputs}))
        return dict(zip(names, outputs, strict=True))
    except Exception:  # noqa: BLE001 - as above
        return None


def _texts(array: Array) -> Array:
    """The array as ONNX Runtime takes it: texts are `str`."""
    if array.dtype != object:
        return array
    return np.array([item.decode() for item in array.flat], object).reshape(array.shape)


def _ort_value(array: Array) -> ort.OrtValue:
    if array.dtype.name == _BFLOAT16:
        bits = array.view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _bits_or_numpy(value: ort.OrtValue) -> Array:
    """An output; numpy has no BF16."""
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    size = 2 * math.prod(value.shape())
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint16).reshape(value.shape())


@cache
def unserved() -> Sequence[Unserved]:
    """The list of models that are not served."""
    table = tomllib.loads(_LIST.read_text("utf-8"))
    return [
        Unserved(names, entry["reason"], entry["message"])
        for entry in table["unserved"]
        for names in entry["tests"]
    ]


def entry_of(case: NodeTest) -> Unserved | None:
    """The entry of that list that names a test."""
    return next((each for each in unserved() if fnmatchcase(case.name, each.names)), None)


def is_equal(one: Array, other: Array) -> bool:
    """Whether two arrays have the same datatype, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool(np.all(one == other))
    return one.tobytes() == other.tobytes()
