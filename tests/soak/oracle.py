"""Requests whose answers are known: their bytes, and the check of an answer.

The requests are written with numpy and the wire format alone, not with the server's codec.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb

MODELS = ("fingerprint", "lengths", "burner", "pair")
"""The models by their numbers in the ledger."""
FINGERPRINT, LENGTHS, BURNER, PAIR = range(len(MODELS))

WIDTHS = (6, 9)
"""Widths of a fingerprint's row: requests of one width share batches."""
MAX_LENGTH = 48
"""The longest row of `lengths`."""
MAX_SOURCE = 8
"""The longest source of `pair`; its answer has as many tokens."""
FIRST_TOKEN, BASE = 4, 4
"""The tokens of an answer of `pair` are `FIRST_TOKEN` to `FIRST_TOKEN + BASE - 1`."""

_HASH_MODULUS = 1_000_003

Array = NDArray[Any]
Outputs = Mapping[str, bytes]
Check = Callable[[Outputs, int], str]
"""Compares raw outputs, and the version that the answer names; what is wrong, or nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request without its id, and the check of its answer."""

    model: int
    head: bytes
    raw: bytes
    check: Check

    def message(self, request_id: str, timeout_us: int = 0) -> bytes:
        """The bytes of the request; with the parameter `timeout`, on a stream."""
        parameter = _timeout(timeout_us) if timeout_us else b""
        return self.head + _field(3, request_id.encode()) + _field(7, self.raw) + parameter


def hash_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """What `fingerprint` and `lengths` compute of rows (batch, n): an integer a row."""
    places = np.arange(1, rows.shape[1] + 1, dtype=np.int64)
    hashes: NDArray[np.int64] = (rows % _HASH_MODULUS * places).sum(axis=1)
    return hashes


def answer_of(source: Sequence[int]) -> list[int]:
    """The tokens that `pair` answers to a source: the digits of the hash of the source."""
    value = sum(token * place for place, token in enumerate(source, 1)) * 37 % BASE**MAX_SOURCE
    return [FIRST_TOKEN + value // BASE**step % BASE for step in range(len(source))]


def fingerprint(random: Random, code: int) -> Question:
    """One to four rows that name the attempt they belong to."""
    count, width = random.choice((1, 1, 1, 2, 3, 4)), random.choice(WIDTHS)
    return _rows(FINGERPRINT, _rows_of(random, code, count, width))


def lengths(random: Random, code: int) -> Question:
    """One or two rows of any length; rows of unequal lengths share batches."""
    count, width = random.choice((1, 1, 2)), random.randint(4, MAX_LENGTH)
    return _rows(LENGTHS, _rows_of(random, code, count, width))


def burner(iterations: int) -> Question:
    """A run of so many iterations."""
    raw = iterations.to_bytes(8, "little", signed=True)

    def check(outputs: Outputs, _version: int) -> str:
        for name in ("echo", "steps"):
            if outputs.get(name) != raw:
                return f"{name}: expected {iterations}, got {_integers(outputs.get(name))}"
        return ""

    return Question(BURNER, _head(BURNER, "iterations", "INT64", (1, 1)), raw, check)


def pair(random: Random) -> Question:
    """A source of an encoder-decoder."""
    source = [random.randint(1, 9) for _ in range(random.randint(2, MAX_SOURCE))]
    expected = np.array(answer_of(source), np.int64).tobytes()

    def check(outputs: Outputs, _version: int) -> str:
        if (tokens := outputs.get("output_tokens")) != expected:
            return f"tokens of {source}: expected {answer_of(source)}, got {_integers(tokens)}"
        return ""

    raw = np.array(source, np.int64).tobytes()
    return Question(PAIR, _head(PAIR, "tokens", "INT64", (1, len(source))), raw, check)


def check_answer(question: Question, response: pb.ModelInferResponse) -> str:
    """What is wrong with an answer, or nothing."""
    if response.model_name != MODELS[question.model]:
        return f"model: expected {MODELS[question.model]}, got {response.model_name!r}"
    outputs = outputs_of(response)
    return question.check(outputs, int(response.model_version))


def outputs_of(response: pb.ModelInferResponse) -> dict[str, bytes]:
    """The raw outputs of an answer by name."""
    names = [output.name for output in response.outputs]
    return dict(zip(names, response.raw_output_contents, strict=True))


def _rows_of(random: Random, code: int, count: int, width: int) -> NDArray[np.int64]:
    rows = np.empty((count, width), np.int64)
    # Below 2**53: ONNX Runtime adds INT64 as doubles, exact to there only.
    rows[:] = random.getrandbits(40)
    rows[:, 0] = code >> 32
    rows[:, 1] = code & 0xFFFFFFFF
    rows[:, 2] = range(count)
    rows[:, 3] = hash_of(rows[:, :3])
    return rows


def _rows(model: int, rows: NDArray[np.int64]) -> Question:
    raw, hashes, count = rows.tobytes(), hash_of(rows).tobytes(), len(rows)

    def check(outputs: Outputs, version: int) -> str:
        if outputs.get("echo") != raw:
            return f"echo: expected {rows.tolist()}, got {_integers(outputs.get('echo'))}"
        if outputs.get("hash") != hashes:
            return f"hash: expected {_integers(hashes)}, got {_integers(outputs.get('hash'))}"
        if outputs.get("version") != version.to_bytes(8, "little") * count:
            got = _integers(outputs.get("version"))
            return f"version: expected {version} in each row, as the answer names it, got {got}"
        return ""

    return Question(model, _head(model, "row", "INT64", rows.shape), raw, check)


def _integers(raw: bytes | None) -> list[int] | None:
    if raw is None or len(raw) % 8:
        return None
    return [int(value) for value in np.frombuffer(raw, np.int64)]


@cache
def _head(model: int, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    message = pb.ModelInferRequest(model_name=MODELS[model])
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _timeout(microseconds: int) -> bytes:
    message = pb.ModelInferRequest()
    message.parameters["timeout"].int64_param = microseconds
    return message.SerializeToString()
