"""Part `contract`: hypothesis makes `ModelInfer` requests, and a model of the contract judges them.

Most requests are valid but for one or two edits. Several are sent at once, so that rows of valid
and of invalid requests meet in a batch. Each must get a status that its violations explain; an
answer must hold exactly the arrays of `contract_model`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.fuzz.contract_model import (
    CONTRACTS,
    DTYPES,
    FIELD_OF,
    FIELDS,
    MAX_ROWS,
    ModelContract,
    judge,
    same,
)
from tests.fuzz.findings import Fault, Findings
from tests.fuzz.server import FuzzedServer
from tests.helpers import infer_parameters
from tests.helpers.protobuf_wire import field
from tests.integration.harness import Array, Client, arrays
from weir.protocol import inference_pb2 as pb

_ANSWER_S = 60.0
_ROUND = 200
_TOGETHER = 3
_MESSAGE = 1
"""The number of the field of a request in a saved file."""
Draw = Callable[..., Any]
Edit = Callable[[pb.ModelInferRequest, Draw], None]

_SIZES = st.sampled_from(
    [-(2**63), -(2**31), -1, 0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 2**31, 2**32 + 1, 2**40, 2**62,
     2**63 - 1]
)  # fmt: skip
_NUMBERS = {
    datatype: st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for datatype, dtype in DTYPES.items()
    if dtype.kind in "iu"
}
_FLOATS = {"FP16": st.floats(width=16), "FP32": st.floats(width=32), "FP64": st.floats()}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    **_NUMBERS,
    **_FLOATS,
    "BOOL": st.booleans(),
    "BYTES": infer_parameters.texts.map(str.encode),
}


@st.composite
def requests(draw: Draw) -> bytes:
    """A request: valid, or with an edit or two."""
    message = draw(_valid_requests())
    for edit in draw(st.lists(st.sampled_from(_EDITS), max_size=2)):
        edit(message, draw)
    return bytes(message.SerializeToString())


@st.composite
def _valid_requests(draw: Draw) -> pb.ModelInferRequest:
    name = draw(st.sampled_from(sorted(CONTRACTS)))
    contract = CONTRACTS[name]
    message = pb.ModelInferRequest(
        model_name=name,
        model_version=draw(st.sampled_from(["", "1"])),
        id=draw(st.sampled_from(["", "id", "µ" * 256])),
    )
    sizes = {"batch": draw(st.integers(1, MAX_ROWS))}
    is_raw = draw(st.booleans()) or any(
        spec.datatype not in FIELD_OF for spec in contract.inputs.values()
    )
    for key, spec in draw(st.permutations(sorted(contract.inputs.items()))):
        for axis in spec.axes:
            if isinstance(axis, str) and axis not in sizes:
                sizes[axis] = draw(st.integers(1, contract.maxima.get(axis, 5)))
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes)
        count = math.prod(shape)
        tensor = message.inputs.add(name=key, datatype=spec.datatype, shape=shape)
        if is_raw and spec.datatype not in ("BOOL", "BYTES") and _takes_all(contract, key):
            size = count * DTYPES[spec.datatype].itemsize
            message.raw_input_contents.append(draw(st.binary(min_size=size, max_size=size)))
            continue
        values = draw(st.lists(_values(contract, key), min_size=count, max_size=count))
        if is_raw:
            message.raw_input_contents.append(_raw(spec.datatype, values))
        else:
            getattr(tensor.contents, FIELD_OF[spec.datatype]).extend(values)
    for key in draw(st.permutations(sorted(contract.outputs)))[: draw(st.integers(0, 2))]:
        message.outputs.add(name=key)
    return message


def _takes_all(contract: ModelContract, key: str) -> bool:
    """Whether every value of its datatype is valid for an input."""
    return key not in contract.most and not contract.only_finite


def _values(contract: ModelContract, key: str) -> st.SearchStrategy[Any]:
    if key in contract.most:
        return st.integers(0, contract.most[key])
    if contract.only_finite:
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    return _VALUES[contract.inputs[key].datatype]


def _raw(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    with np.errstate(all="ignore"):
        return np.array(values, DTYPES[datatype]).tobytes()


# Edits


def _any_input(message: pb.ModelInferRequest, draw: Draw) -> Any:
    """An input of the message; another one, if it has none."""
    if not message.inputs:
        return pb.ModelInferRequest.InferInputTensor()
    return message.inputs[draw(st.integers(0, len(message.inputs) - 1))]


def _edit_datatype(message: pb.ModelInferRequest, draw: Draw) -> None:
    _any_input(message, draw).datatype = draw(st.sampled_from([*DTYPES, "", "fp32", "STRING"]))


def _edit_size(message: pb.ModelInferRequest, draw: Draw) -> None:
    tensor = _any_input(message, draw)
    if tensor.shape:
        tensor.shape[draw(st.integers(0, len(tensor.shape) - 1))] = draw(_SIZES)


def _edit_axes(message: pb.ModelInferRequest, draw: Draw) -> None:
    tensor = _any_input(message, draw)
    if draw(st.booleans()):
        tensor.shape.extend([draw(_SIZES)] * draw(st.sampled_from([1, 2, 32, 60])))
    elif tensor.shape:
        del tensor.shape[-1]


def _edit_rows(message: pb.ModelInferRequest, draw: Draw) -> None:
    """One more or fewer, in the shape of every input."""
    change = draw(st.sampled_from([-1, 1, MAX_ROWS]))
    for tensor in message.inputs:
        if tensor.shape and tensor.shape[0] < 2**62:
            tensor.shape[0] += change


def _edit_rows_and_contents(message: pb.ModelInferRequest, draw: Draw) -> None:
    """Many rows, or none, with as much contents."""
    rows = draw(st.sampled_from([0, 2, MAX_ROWS, MAX_ROWS + 1, 40]))
    for position, tensor in enumerate(message.inputs):
        before = tensor.shape[0] if tensor.shape else 0
        if not 0 < before <= MAX_ROWS:
            continue
        tensor.shape[0] = rows
        if position < len(message.raw_input_contents):
            row = message.raw_input_contents[position]
            row = row[: len(row) // before]
            message.raw_input_contents[position] = row * rows
        elif (own := FIELD_OF.get(tensor.datatype)) is not None:
            values = getattr(tensor.contents, own)
            row_values = list(values)[: len(values) // before]
            del values[:]
            values.extend(row_values * rows)


def _edit_raw(message: pb.ModelInferRequest, draw: Draw) -> None:
    if not message.raw_input_contents:
        message.raw_input_contents.append(draw(st.binary(max_size=40)))
        return
    position = draw(st.integers(0, len(message.raw_input_contents) - 1))
    data = message.raw_input_contents[position]
    at = draw(st.integers(0, len(data)))
    noise = draw(st.binary(max_size=9))
    rest = draw(st.sampled_from([b"", noise + data[at:], noise + data[at + len(noise) :]]))
    message.raw_input_contents[position] = data[:at] + rest


def _edit_raw_count(message: pb.ModelInferRequest, draw: Draw) -> None:
    if message.raw_input_contents and draw(st.booleans()):
        del message.raw_input_contents[-1]
    else:
        message.raw_input_contents.append(draw(st.binary(max_size=8)))


def _edit_contents(message: pb.ModelInferRequest, draw: Draw) -> None:
    """Further elements of a typed list, its own or another's."""
    tensor = _any_input(message, draw)
    name = draw(st.sampled_from(sorted(FIELDS)))
    element = _VALUES[FIELDS[name][-1]]
    tensor.contents.SetInParent()
    getattr(tensor.contents, name).extend(draw(st.lists(element, max_size=3)))


def _edit_contents_cut(message: pb.ModelInferRequest, draw: Draw) -> None:
    tensor = _any_input(message, draw)
    for entry, values in tensor.contents.ListFields():
        del values[draw(st.integers(0, len(values) - 1)) :]
        if not values and draw(st.booleans()):
            tensor.contents.ClearField(entry.name)


def _edit_contents_value(message: pb.ModelInferRequest, draw: Draw) -> None:
    """An element that its list may hold, and its datatype perhaps not."""
    for entry, values in _any_input(message, draw).contents.ListFields():
        element = (
            st.sampled_from([b"", b"\0", b"\xff", b"a\0b", b"\xc3", "µ".encode()])
            if entry.name == "bytes_contents"
            else _VALUES[FIELDS[entry.name][-1]]
        )
        values[draw(st.integers(0, len(values) - 1))] = draw(element)


def _edit_strings(message: pb.ModelInferRequest, draw: Draw) -> None:
    """Raw strings of any bytes, and of wrong lengths."""
    items = draw(st.lists(st.binary(max_size=4), max_size=5))
    longer = draw(st.sampled_from([0, 0, 0, 1, 2**32 - 5]))
    raw = b"".join((len(item) + longer).to_bytes(4, "little") + item for item in items)
    del message.raw_input_contents[:]
    message.raw_input_contents.append(raw)
    for tensor in message.inputs:
        tensor.ClearField("contents")


def _edit_inputs(message: pb.ModelInferRequest, draw: Draw) -> None:
    """An input that is missing, there twice, or of another name."""
    tensor = _any_input(message, draw)
    what = draw(st.sampled_from(["missing", "twice", "renamed", "none"]))
    if what == "renamed":
        tensor.name = draw(st.sampled_from(["", "X", "x ", "y", "a", "b", "n" * 9000]))
    elif what == "twice":
        message.inputs.add().CopyFrom(tensor)
        if message.raw_input_contents and draw(st.booleans()):
            message.raw_input_contents.append(message.raw_input_contents[0])
    elif what == "missing" and message.inputs:
        del message.inputs[-1]
        if message.raw_input_contents and draw(st.booleans()):
            del message.raw_input_contents[-1]
    elif what == "none":
        del message.inputs[:]


def _edit_outputs(message: pb.ModelInferRequest, draw: Draw) -> None:
    names = draw(st.lists(st.sampled_from(["y", "sum", "product", "x", ""]), max_size=3))
    del message.outputs[:]
    for name in names:
        message.outputs.add(name=name)


def _edit_classification(message: pb.ModelInferRequest, draw: Draw) -> None:
    if not message.outputs and (contract := CONTRACTS.get(message.model_name)):
        message.outputs.add(name=draw(st.sampled_from(sorted(contract.outputs))))
    for output in message.outputs:
        sane = st.builds(pb.InferParameter, int64_param=st.integers(1, 5))
        parameter = draw(st.one_of(sane, infer_parameters.values))
        output.parameters["classification"].CopyFrom(parameter)


def _edit_parameters(message: pb.ModelInferRequest, draw: Draw) -> None:
    drawn = draw(st.dictionaries(infer_parameters.keys, infer_parameters.values, max_size=3))
    for key, value in drawn.items():
        message.parameters[key].CopyFrom(value)


def _edit_many_parameters(message: pb.ModelInferRequest, draw: Draw) -> None:
    for number in range(draw(st.sampled_from([63, 64, 65]))):
        message.parameters[f"own{number}"].SetInParent()


def _edit_tensor_parameters(message: pb.ModelInferRequest, draw: Draw) -> None:
    tensors = [*message.inputs, *message.outputs]
    if tensors:
        tensor = draw(st.sampled_from(tensors))
        tensor.parameters[draw(infer_parameters.keys)].CopyFrom(draw(infer_parameters.values))


def _edit_id(message: pb.ModelInferRequest, draw: Draw) -> None:
    message.id = draw(
        st.one_of(st.sampled_from(["a" * 257, "a\n", "\x1b", "\0"]), infer_parameters.texts)
    )


def _edit_model(message: pb.ModelInferRequest, draw: Draw) -> None:
    other = st.sampled_from([*sorted(CONTRACTS), "", "../strict", "strict\0", "m" * 9000])
    message.model_name = draw(other)


def _edit_version(message: pb.ModelInferRequest, draw: Draw) -> None:
    message.model_version = draw(
        st.one_of(
            st.sampled_from(["0", "01", "2", "-1", " 1", "1 ", "1.0", str(2**64), "stable", "²"]),
            infer_parameters.texts,
        )
    )


_EDITS: Sequence[Edit] = (
    _edit_datatype, _edit_size, _edit_axes, _edit_rows, _edit_rows_and_contents, _edit_raw,
    _edit_raw_count, _edit_contents, _edit_contents_cut, _edit_contents_value, _edit_strings,
    _edit_inputs, _edit_outputs, _edit_classification, _edit_parameters, _edit_many_parameters,
    _edit_tensor_parameters, _edit_id, _edit_model, _edit_version,
)  # fmt: skip


# The run


def run(
    findings: Findings,
    number: int,
    folder: Path,
    *,
    seconds: float,
    rounds: float = math.inf,
    planted: str = "",
) -> None:
    """Send requests until the time is over, so many rounds were made, or a planted bug is found."""
    end_s = time.monotonic() + seconds
    with FuzzedServer(folder, planted) as server, _sender(server) as send:
        done = 0
        while time.monotonic() < end_s and done < rounds and not (planted and findings.files):
            _round(findings, number * 1_000_003 + done, send, end_s)
            done += 1


def replay(data: bytes, folder: Path) -> None:
    """Send the requests of a file; raises Fault."""
    with FuzzedServer(folder) as server, _sender(server) as send:
        send(list(_loaded(data)))


def _round(
    findings: Findings, number: int, send: Callable[[Sequence[bytes]], None], end_s: float
) -> None:
    # Hypothesis makes a failing example smaller: the smallest one is saved.
    @seed(number)
    @settings(
        max_examples=_ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(st.lists(requests(), min_size=1, max_size=_TOGETHER))
    def check(payloads: list[bytes]) -> None:
        if time.monotonic() > end_s:
            return
        findings.ran(len(payloads))
        try:
            send(payloads)
        except Fault as fault:
            findings.add(fault, _saved(payloads))
            raise

    try:
        check()
    except (Fault, HypothesisException):
        return


@contextmanager
def _sender(server: FuzzedServer) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Sends requests at once and compares what they get."""
    client = Client(server.target)

    def send(payloads: Sequence[bytes]) -> None:
        nonlocal client
        calls = [client.send(payload, _ANSWER_S) for payload in payloads]
        try:
            for payload, call in zip(payloads, calls, strict=True):
                _compare(pb.ModelInferRequest.FromString(payload), call)
        finally:
            for call in calls:
                call.cancel()
            if server.has_died():
                client.channel.close()
                server.restart()
                client = Client(server.target)

    try:
        yield send
    finally:
        client.channel.close()


def _compare(message: pb.ModelInferRequest, call: Any) -> None:
    verdict = judge(message)
    error = call.exception()
    status = "OK" if error is None else error.code().name
    expected = "OK" if verdict.statuses == {"OK"} else " or ".join(sorted(verdict.statuses))
    if status not in verdict.statuses:
        details = "" if error is None else f": {error.details()[:300]}"
        raise Fault(f"expected {expected}, got {status}{details}")
    if error is None:
        _compare_answer(message, call.result(), verdict.outputs)


def _compare_answer(
    message: pb.ModelInferRequest,
    response: pb.ModelInferResponse,
    expected: Sequence[tuple[str, str, Array]],
) -> None:
    named = (response.model_name, response.model_version, response.id)
    if named != (message.model_name, "1", message.id):
        raise Fault(f"the answer names another model, version or id: {named}")
    forms = [(output.name, output.datatype) for output in response.outputs]
    if forms != [(name, datatype) for name, datatype, _ in expected]:
        raise Fault(f"expected other outputs, got {forms}")
    answer = arrays(response)
    for name, _, array in expected:
        if not same(answer[name], array):
            raise Fault(f"output {name!r}: expected {array.tolist()}, got {answer[name].tolist()}")


def _saved(payloads: Sequence[bytes]) -> bytes:
    return b"".join(field(_MESSAGE, payload) for payload in payloads)


def _loaded(data: bytes) -> Iterator[bytes]:
    while data:
        length = shift = 0
        data = data[1:]
        while True:
            byte, data = data[0], data[1:]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        payload, data = data[:length], data[length:]
        yield payload
