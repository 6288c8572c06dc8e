"""A small model of the request contract: what a `ModelInfer` request must get.

It is written from `docs/faults.md`, and imports nothing of the server. It does not know which of
several violations the server meets first: each may decide the status.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.integration.harness import DTYPE_NAMES
from weir.protocol import inference_pb2 as pb

Array = NDArray[Any]
Axis = int | str
Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]

INVALID, NOT_FOUND, UNIMPLEMENTED = "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"
LATE = ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
"""What a request gets that has too little time left; both are right."""

MAX_ROWS = 8
MAX_TIME = 16
VOCABULARY = 8
_MAX_PARAMETERS = 64
# Nothing, a number, or a label.
_VERSION = re.compile(r"|0|[1-9][0-9]{0,17}|[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DAY_US = 86_400 * 10**6
# A shorter timeout may pass before the request is answered.
_PLENTY_US = 20 * 10**6

DTYPES = {name: np.dtype(dtype) for dtype, name in DTYPE_NAMES.items()} | {"BF16": np.dtype("u2")}
FIELDS = {
    "bool_contents": ("BOOL",),
    "int_contents": ("INT8", "INT16", "INT32"),
    "int64_contents": ("INT64",),
    "uint_contents": ("UINT8", "UINT16", "UINT32"),
    "uint64_contents": ("UINT64",),
    "fp32_contents": ("FP32",),
    "fp64_contents": ("FP64",),
    "bytes_contents": ("BYTES",),
}
"""The typed list of each datatype; the others travel as raw bytes only."""
FIELD_OF = {datatype: name for name, datatypes in FIELDS.items() for datatype in datatypes}


class Violation(Exception):
    """The request breaks the contract; `args` are the statuses, one of which it gets."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Datatype and axes of an input or output; `batch` is the axis of rows."""

    datatype: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class ModelContract:
    """What a model takes and gives.

    Attributes:
        answer: the outputs, by numpy.
        maxima: the most entries of an axis, by name; the least is 1.
        most: the largest value of an input, by name; the least is 0.
        only_finite: whether NaN and infinity are refused.
    """

    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]
    answer: Answer
    maxima: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    only_finite: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request may get.

    Attributes:
        statuses: one of these.
        outputs: with the status OK: names, datatypes and arrays, in order.
    """

    statuses: frozenset[str]
    outputs: Sequence[tuple[str, str, Array]] = ()


def _echo(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": inputs["x"]}


def _echo_of(datatype: str, *axes: Axis) -> ModelContract:
    tensor = Spec(datatype, ("batch", *axes))
    return ModelContract({"x": tensor}, {"y": tensor}, _echo)


def _affine(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    with np.errstate(all="ignore"):
        return {"y": (inputs["x"] * np.float32(2) + np.float32(1)).astype("<f4")}


def _arithmetic(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    with np.errstate(all="ignore"):
        return {"sum": inputs["a"] + inputs["b"], "product": inputs["a"] * inputs["b"]}


def _gather(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": (10 * inputs["tokens"]).astype("<f4")}


_ROW = Spec("FP32", ("batch", 3))
_ROW_4 = Spec("FP32", ("batch", 4))
CONTRACTS = {
    **{f"echo_{datatype}": _echo_of(datatype, 2) for datatype in DTYPES},
    "free": _echo_of("FP32", "time"),
    "strict": ModelContract({"x": _ROW_4}, {"y": _ROW_4}, _affine, only_finite=True),
    "arithmetic": ModelContract(
        {"a": _ROW, "b": _ROW}, {"sum": _ROW, "product": _ROW}, _arithmetic
    ),
    "sentences": ModelContract(
        {"tokens": Spec("INT64", ("batch", "time"))},
        {"y": Spec("FP32", ("batch", "time"))},
        _gather,
        maxima={"time": MAX_TIME},
        most={"tokens": VOCABULARY - 1},
    ),
}
"""By the name of the model; `models.write_repository` writes them."""


def judge(message: pb.ModelInferRequest) -> Verdict:
    """What a request may get."""
    statuses: set[str] = set()

    def expect(check: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return check(*arguments)
        except Violation as violation:
            statuses.update(violation.args)
            return None

    expect(_check_id, message.id)
    expect(_check_model, message.model_name, message.model_version)
    is_hurried = expect(_check_parameters, message.parameters)
    contract = CONTRACTS.get(message.model_name)
    if contract is None:
        return Verdict(frozenset(statuses))
    for parameters in _tensor_parameters(message):
        expect(_check_tensor_parameters, parameters)
    inputs = expect(_inputs, message, contract)
    requested = expect(_requested, message, contract)
    if statuses:
        return Verdict(frozenset(statuses))
    answer = contract.answer(inputs)
    outputs = [
        (name, contract.outputs[name].datatype, answer[name])
        if classes is None
        else (name, "BYTES", _classified(answer[name], classes))
        for name, classes in requested
    ]
    return Verdict(frozenset({"OK", *(LATE if is_hurried else ())}), outputs)


def decoded(message: pb.ModelInferRequest) -> Mapping[str, Array] | None:
    """The arrays of a request's inputs; None if the request breaks the contract of its model."""
    contract = CONTRACTS[message.model_name]
    try:
        _check_id(message.id)
        _check_parameters(message.parameters)
        for parameters in _tensor_parameters(message):
            _check_tensor_parameters(parameters)
        _requested(message, contract)
        return _inputs(message, contract)
    except Violation:
        return None


def same(actual: Array, expected: Array) -> bool:
    """Whether two arrays have one shape and the same elements; NaN is equal to NaN."""
    if actual.shape != expected.shape:
        return False
    has_nan = expected.dtype.kind == "f"
    return bool(np.array_equal(actual, expected, equal_nan=has_nan))


def _require(is_met: bool, status: str = INVALID) -> None:  # noqa: FBT001 - the condition is all
    if not is_met:
        raise Violation(status)


def _check_id(request_id: str) -> None:
    _require(len(request_id) <= 256 and request_id.isprintable())


def _check_model(name: str, version: str) -> None:
    _require(_VERSION.fullmatch(version) is not None)
    _require(name != "")
    _require(name in CONTRACTS and version in ("", "1"), NOT_FOUND)


def _check_parameters(parameters: Mapping[str, pb.InferParameter]) -> bool:
    """Whether the request leaves itself little time."""
    _require(len(parameters) <= _MAX_PARAMETERS)
    statuses = {_status_of(key, parameter) for key, parameter in parameters.items()} - {"OK"}
    if statuses:
        # The order of a map's entries is open.
        raise Violation(*statuses)
    return "timeout" in parameters and 0 < int(_value(parameters["timeout"])) < _PLENTY_US


def _value(parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _status_of(key: str, parameter: pb.InferParameter) -> str:
    """What a request with this parameter gets, if everything else is well."""
    kind, value = parameter.WhichOneof("parameter_choice"), _value(parameter)
    most = {"timeout": _DAY_US, "priority": 2**32 - 1}.get(key)
    if most is not None:
        is_valid = kind in ("int64_param", "uint64_param") and 0 <= value <= most
    elif key in ("sequence_id", "sequence_start", "sequence_end"):
        if kind not in (None, "double_param") and value:
            return UNIMPLEMENTED
        is_valid = kind not in (None, "double_param")
    elif key == "triton_enable_empty_final_response":
        is_valid = kind == "bool_param"
    elif key.startswith("shared_memory_"):
        return UNIMPLEMENTED
    else:
        is_valid = not key.startswith("triton_")
    return "OK" if is_valid else INVALID


def _tensor_parameters(
    message: pb.ModelInferRequest,
) -> list[Mapping[str, pb.InferParameter]]:
    inputs = [tensor.parameters for tensor in message.inputs]
    return [*inputs, *(output.parameters for output in message.outputs)]


def _check_tensor_parameters(parameters: Mapping[str, pb.InferParameter]) -> None:
    _require(len(parameters) <= _MAX_PARAMETERS)
    _require(not any(key.startswith("shared_memory_") for key in parameters), UNIMPLEMENTED)


def _inputs(message: pb.ModelInferRequest, contract: ModelContract) -> dict[str, Array]:
    names = [tensor.name for tensor in message.inputs]
    _require(sorted(names) == sorted(contract.inputs))
    sizes: dict[str, int] = {}
    for tensor in message.inputs:
        spec, shape = contract.inputs[tensor.name], tuple(tensor.shape)
        _require(tensor.datatype == spec.datatype and len(shape) == len(spec.axes))
        for axis, size in zip(spec.axes, shape, strict=True):
            if isinstance(axis, str):
                _require(size == sizes.setdefault(axis, size) and 0 <= size <= 2**40)
                _require(axis not in contract.maxima or 1 <= size <= contract.maxima[axis])
            else:
                _require(size == axis)
    _require(1 <= sizes["batch"] <= MAX_ROWS)
    raw = list(message.raw_input_contents)
    _require(not raw or len(raw) == len(names))
    inputs = {}
    for position, tensor in enumerate(message.inputs):
        if raw:
            _require(not tensor.HasField("contents"))
            flat = _from_raw(tensor.datatype, math.prod(tensor.shape), raw[position])
        else:
            flat = _from_typed(tensor.datatype, math.prod(tensor.shape), tensor.contents)
        array = flat.reshape(tuple(tensor.shape))
        if array.dtype == object:
            _require(all(map(_is_utf8, flat)))
        most = contract.most.get(tensor.name)
        _require(most is None or bool(((array >= 0) & (array <= most)).all()))
        _require(not contract.only_finite or bool(np.isfinite(array).all()))
        inputs[tensor.name] = array
    return inputs


def _from_raw(datatype: str, count: int, raw: bytes) -> Array:
    if datatype != "BYTES":
        dtype = DTYPES[datatype]
        _require(len(raw) == count * dtype.itemsize)
        _require(datatype != "BOOL" or set(raw) <= {0, 1})
        return np.frombuffer(raw, dtype)
    elements = []
    while raw:
        _require(len(raw) >= 4)
        end = 4 + int.from_bytes(raw[:4], "little")
        _require(end <= len(raw))
        elements.append(raw[4:end])
        raw = raw[end:]
    _require(len(elements) == count)
    return _objects(elements)


def _from_typed(datatype: str, count: int, contents: pb.InferTensorContents) -> Array:
    filled = [entry.name for entry, _ in contents.ListFields()]
    own = FIELD_OF.get(datatype)
    _require(own is not None or count == 0)
    _require(filled in ([], [own]))
    values = list(getattr(contents, own)) if own else []
    _require(len(values) == count)
    if datatype == "BYTES":
        return _objects(values)
    if DTYPES[datatype].kind in "iu":
        bounds = np.iinfo(DTYPES[datatype])
        _require(all(bounds.min <= value <= bounds.max for value in values))
    return np.array(values, DTYPES[datatype])


def _objects(elements: Sequence[bytes]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _requested(
    message: pb.ModelInferRequest, contract: ModelContract
) -> Sequence[tuple[str, int | None]]:
    """The outputs that a request asks for, with the classes of each."""
    if not message.outputs:
        return [(name, None) for name in contract.outputs]
    names = [output.name for output in message.outputs]
    _require(len(set(names)) == len(names) and set(names) <= set(contract.outputs))
    return [(each.name, _classes(each, contract.outputs[each.name])) for each in message.outputs]


def _classes(output: pb.ModelInferRequest.InferRequestedOutputTensor, spec: Spec) -> int | None:
    if "classification" not in output.parameters:
        return None
    parameter = output.parameters["classification"]
    kind = parameter.WhichOneof("parameter_choice")
    _require(kind in ("int64_param", "uint64_param"))
    classes = int(getattr(parameter, str(kind)))
    _require(1 <= classes < 2**31 and spec.datatype not in ("BYTES", "BOOL", "BF16"))
    return classes


def _classified(array: Array, classes: int) -> Array:
    rows = [
        [
            f"{float(row[index]):f}:{index}".encode()
            for index in sorted(
                range(len(row)), key=lambda index: (np.isnan(row[index]), -float(row[index]), index)
            )[:classes]
        ]
        for row in array
    ]
    texts = np.empty((len(array), len(rows[0])), object)
    for position in np.ndindex(texts.shape):
        texts[position] = rows[position[0]][position[1]]
    return texts
