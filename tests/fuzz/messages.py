"""Part `messages`: the message limits and the decoder, on any bytes.

`check` is the harness. Two drivers call it: atheris, guided by coverage, where it is installed
(`guided`), and otherwise a loop that keeps the inputs with a new outcome (`drive`).
"""

import math
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tests.fuzz.contract_model import CONTRACTS, DTYPES, MAX_ROWS, decoded, same
from tests.fuzz.findings import Fault, Findings, say
from tests.fuzz.mutator import crossed, mutated
from tests.helpers.protobuf_wire import field, varint
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb
from weir.server.errors import RequestError
from weir.server.protocol import message_limits, request_decoder
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature, TensorSpec

_MOST_S = 1.0
"""Of CPU for one input, of at most 256 KiB: a hundred times what the dearest one needs."""
_MOST_MEMORY_BYTES = 256 << 20
_MOST_KEPT, _MOST_KEPT_BYTES = 2000, 5000

# The bounds of `message_limits`, as `docs/serving.md` and its own text state them.
_UNCOUNTED_BYTES = 4096
_MOST_FIELDS = 16_384
_MOST_TYPED = 65_536
_MOST_SHAPE_BYTES = 640
_MOST_TOP_FIELDS = 2048
_MOST_TENSORS = 1024
_MOST_TEXT_BYTES = 64 * 1024
_INPUTS, _OUTPUTS, _SHAPE, _CONTENTS = 5, 6, 3, 5
_GROUP = -1


def _signature(name: str) -> Signature:
    """The signature of a contract, as a loader makes it."""
    contract = CONTRACTS[name]
    inputs, outputs = (
        [TensorSpec(key, spec.datatype, spec.axes) for key, spec in specs.items()]
        for specs in (contract.inputs, contract.outputs)
    )
    return Signature(inputs, outputs, batch_axis="batch", max_rows=MAX_ROWS, maxima=contract.maxima)


# The contract of `sentences` bounds values too, which takes a bundle.
_SIGNATURES = {name: _signature(name) for name in CONTRACTS if name != "sentences"}
_NO_RULES = SequenceRules({}, {}, ())


def check(payload: bytes) -> str:
    """Give a payload to every function that reads one; a word for the outcome.

    Raises:
        Fault: an error that is no RequestError, a result that protobuf does not confirm, or a cost
            out of all proportion.
    """
    memory_bytes, began_s = _peak_bytes(), time.thread_time()
    parsed, outcome = _tried(request_decoder.parse_request, payload)
    inline, inline_outcome = _tried(request_decoder.parse_inline, payload)
    few, _ = _tried(message_limits.has_few_parts, payload)
    texts, text_outcome = _tried(message_limits.read_texts, payload, 1, 2, 3)
    _, tokens_outcome = _tried(message_limits.check_texts, payload)
    arrays, decode_outcome = (None, "") if parsed is None else _tried(_decode, parsed)
    spent_s = time.thread_time() - began_s
    if spent_s > _MOST_S:
        raise Fault(f"{len(payload)} bytes took {spent_s:.1f} s of CPU")
    if (grown := _peak_bytes() - memory_bytes) > _MOST_MEMORY_BYTES:
        raise Fault(f"{len(payload)} bytes took {grown >> 20} MiB")
    _compare_parsed(payload, parsed, inline, is_few=bool(few))
    _compare_texts(payload, texts, text_outcome)
    if parsed is not None:
        _compare_decoded(parsed, arrays, decode_outcome)
    return f"{outcome} | {inline_outcome} | {text_outcome} | {tokens_outcome} | {decode_outcome}"


def _tried(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The result of a function, or None; and a word for the outcome."""
    try:
        return function(*arguments), "ok"
    except RequestError as error:
        return None, f"{type(error).__name__}: {re.sub(r'[^a-z ]+', '_', str(error)[:80])}"
    except Exception as error:
        name = getattr(function, "__name__", "a function")
        raise Fault(f"{name}: {type(error).__name__}: {error}") from error


def _decode(message: pb.ModelInferRequest) -> dict[str, Any]:
    """As a served model does; an unknown model is that of the inputs as they were sent."""
    signature = _SIGNATURES.get(message.model_name)
    if signature is None:
        forms = request_decoder.forms(message.inputs[:])
        specs = [
            TensorSpec(name, datatype if datatype in DTYPES else "FP32", (None,) * len(shape))
            for name, datatype, shape in forms
        ]
        signature = Signature(specs, (), batch_axis=None, max_rows=1)
    request_decoder.check_id(message.id)
    found = request_decoder.decode_request(
        message, signature, _NO_RULES, finite_only=message.model_name == "strict"
    )
    request_decoder.requested_outputs(message, signature, {})
    return found.inputs


def _compare_parsed(
    payload: bytes,
    parsed: pb.ModelInferRequest | None,
    inline: pb.ModelInferRequest | None,
    *,
    is_few: bool,
) -> None:
    try:
        expected = pb.ModelInferRequest.FromString(payload)
    except DecodeError:
        if parsed is not None or inline is not None:
            raise Fault("a message that protobuf refuses was parsed") from None
        return
    count = _Count(payload)
    if count.is_over and parsed is not None:
        raise Fault(f"too many parts were parsed: {count}")
    # Groups, which protobuf skips, may be refused.
    if parsed is None and not (count.is_over or count.has_group):
        raise Fault(f"a message of few parts was refused: {count}")
    for message in (parsed, inline):
        if message is not None and _serialized(message) != _serialized(expected):
            raise Fault("protobuf reads another message")
    if inline is not None and not is_few:
        raise Fault("a message of many parts was parsed at once")


def _serialized(message: pb.ModelInferRequest) -> bytes:
    """What is compared: NaN is not equal to itself."""
    return message.SerializeToString(deterministic=True)


def _compare_texts(payload: bytes, texts: list[str] | None, outcome: str) -> None:
    try:
        expected = tasks_pb.TagRequest.FromString(payload)
    except DecodeError:
        return
    if texts is not None:
        if texts != [expected.model_name, expected.model_version, expected.id]:
            raise Fault(f"read_texts: protobuf reads other texts than {texts}")
        return
    fields = list(_fields(payload))
    longest = max((len(data) for number, data in fields if 1 <= number <= 3), default=0)
    has_group = any(number == _GROUP for number, _ in fields)
    if not has_group and len(fields) <= _MOST_TOP_FIELDS and longest <= _MOST_TEXT_BYTES:
        raise Fault(f"read_texts: refused what protobuf reads: {outcome}")


def _compare_decoded(
    message: pb.ModelInferRequest, arrays: dict[str, Any] | None, outcome: str
) -> None:
    if message.model_name not in _SIGNATURES:
        return
    expected = decoded(message)
    if arrays is None:
        if expected is not None:
            raise Fault(f"a valid request was refused: {outcome}")
        return
    if expected is None:
        raise Fault("a request that breaks the contract was decoded")
    for name, array in expected.items():
        found = arrays[name]
        if array.dtype == object:
            found = found.copy()
            found.ravel()[:] = [text.encode() for text in found.ravel()]
        if not same(found, array):
            raise Fault(f"input {name!r}: expected {array.tolist()}, got {found.tolist()}")


class _Count:
    """The parts of a request, counted plainly, in a message that protobuf reads."""

    def __init__(self, payload: bytes) -> None:
        top = list(_fields(payload))
        self.fields, self.typed, self.shape_bytes = len(top), 0, 0
        self.has_group = any(number == _GROUP for number, _ in top)
        numbers = [number for number, _ in top]
        self.tensors = max(numbers.count(_INPUTS), numbers.count(_OUTPUTS))
        for number, data in top:
            if number not in (_INPUTS, _OUTPUTS):
                continue
            fields = list(_fields(data))
            self.fields += len(fields)
            self.has_group |= any(number == _GROUP for number, _ in fields)
            for inner_number, part in fields if number == _INPUTS else ():
                if inner_number == _SHAPE:
                    self.shape_bytes = max(self.shape_bytes, len(part))
                elif inner_number == _CONTENTS:
                    elements = list(_fields(part))
                    self.typed += len(elements)
                    self.has_group |= any(number == _GROUP for number, _ in elements)
        self.is_over = len(payload) > _UNCOUNTED_BYTES and (
            self.fields > _MOST_FIELDS
            or self.typed > _MOST_TYPED
            or self.tensors > _MOST_TENSORS
            or self.shape_bytes > _MOST_SHAPE_BYTES
        )

    def __str__(self) -> str:
        return (
            f"{self.fields} fields, {self.typed} typed, {self.tensors} tensors, "
            f"a shape of {self.shape_bytes} bytes"
        )


def _fields(data: bytes) -> Iterable[tuple[int, bytes]]:
    """Number and bytes of each field of a message that protobuf reads.

    The number is 0 for a field that holds no bytes, and `_GROUP` for a group: it is the last one.
    """
    position = 0
    while position < len(data):
        key, position = _number(data, position)
        start = position
        if key & 7 == 2:
            length, start = _number(data, position)
            position = start + length
        elif key & 7 == 0:
            _, position = _number(data, position)
        elif key & 7 in (3, 4):
            yield _GROUP, b""
            return
        else:
            position += 8 if key & 7 == 1 else 4
        yield key >> 3 if key & 7 == 2 else 0, data[start:position]


def _number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 0x80:
        value |= (data[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return value | data[position] << shift, position + 1


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Inputs to begin with


def seeds() -> list[bytes]:
    """Messages of every shape that the limits and the decoder know."""
    found = []
    for name, contract in CONTRACTS.items():
        message = pb.ModelInferRequest(model_name=name, id="id")
        typed = pb.ModelInferRequest(model_name=name)
        for key, spec in contract.inputs.items():
            shape = [2 if isinstance(axis, str) else axis for axis in spec.axes]
            message.inputs.add(name=key, datatype=spec.datatype, shape=shape)
            raw = b"\1\0\0\0a" if spec.datatype == "BYTES" else bytes(_ITEM_BYTES[spec.datatype])
            message.raw_input_contents.append(raw * math.prod(shape))
            tensor = typed.inputs.add(name=key, datatype=spec.datatype, shape=shape)
            tensor.contents.fp32_contents.extend([0.5] * math.prod(shape))
        message.outputs.add(name="y").parameters["classification"].int64_param = 2
        message.parameters["timeout"].int64_param = 10**6
        found += [message.SerializeToString(), typed.SerializeToString()]
    contents = pb.InferTensorContents(bytes_contents=[b"a", b""], int64_contents=[1, 2**40])
    found.append(field(5, field(1, b"x") + field(5, contents.SerializeToString())))
    found.append(
        field(1, b"m") + field(7, bytes(2 * _UNCOUNTED_BYTES)) + field(5, field(3, b"\1\2"))
    )
    found.append(
        tasks_pb.TagRequest(
            model_name="m",
            texts=[
                tasks_pb.Text(text="a"),
                tasks_pb.Text(tokens=tasks_pb.Tokens(tokens=["a", "b"])),
            ],
        ).SerializeToString()
    )
    return [*found, b"", varint(2**64 - 1)]


_ITEM_BYTES = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2, "UINT32": 4,
    "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip


def drive(findings: Findings, number: int, *, seconds: float, executions: float = math.inf) -> None:
    """Mutate and check; an input with a new outcome is mutated too, later."""
    random_ = random.Random(number)
    corpus, outcomes = seeds(), set[str]()
    for payload in corpus:
        outcomes.add(checked(findings, payload))
    end_s, done = time.monotonic() + seconds, 0
    while time.monotonic() < end_s and done < executions:
        # The newest outcomes are the least explored.
        chosen = corpus[int(len(corpus) * math.sqrt(random_.random()))]
        payload = mutated(chosen, random_)
        if random_.random() < 0.1:
            payload = crossed(payload, random_.choice(corpus), random_)
        outcome = checked(findings, payload)
        if outcome not in outcomes:
            outcomes.add(outcome)
            if len(payload) <= _MOST_KEPT_BYTES and len(corpus) < _MOST_KEPT:
                corpus.append(payload)
        done += 1
        findings.ran(1, f", {len(outcomes)} outcomes")


def checked(findings: Findings, payload: bytes) -> str:
    """The outcome of a payload; a fault is a finding."""
    try:
        return check(payload)
    except Fault as fault:
        findings.add(fault, payload)
        return f"fault: {str(fault)[:40]}"


def run(findings: Findings, number: int, folder: Path, *, seconds: float) -> None:
    """Check messages until the time is over: half of it with each driver, if there are two."""
    is_guided = find_spec("atheris") is not None
    if not is_guided:
        say("messages: not guided by coverage, as atheris is missing: make .venv/installed-fuzz")
    drive(findings, number, seconds=seconds / (1 + is_guided))
    if not is_guided:
        return
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("messages-*"))
    with (folder / "libfuzzer.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", str(number), str(folder), str(seconds / 2)],
            stderr=log,
            check=False,
            timeout=seconds + 120,
        )
    findings.files += sorted(set(folder.glob("messages-*")) - before)
    if done.returncode != 0:
        say(f"FOUND messages: the process ended with {done.returncode}; see {log.name}")
        findings.files.append(Path(log.name))


def replay(data: bytes, _folder: Path) -> None:
    """Check the message of a file; raises Fault."""
    say(f"messages: {check(data)}")
