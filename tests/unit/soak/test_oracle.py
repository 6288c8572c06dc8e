"""Requests of the soak, and the check of their answers."""

from random import Random

import numpy as np
import pytest

from tests.soak import oracle
from tests.soak.ledger import code_of, code_on_the_wire, wire_id
from weir.protocol import inference_pb2 as pb


def answer(version: int, *, echo: bytes, hashes: bytes, served: int) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="fingerprint", model_version=str(version))
    rows = len(hashes) // 8
    parts = {"echo": echo, "hash": hashes, "version": np.full(rows, served).tobytes()}
    for name, raw in parts.items():
        response.outputs.add(name=name)
        response.raw_output_contents.append(raw)
    return response


def test_message_is_a_request_with_its_id() -> None:
    question = oracle.fingerprint(Random(1), code_of(1, 1, 5, 0))

    message = pb.ModelInferRequest.FromString(question.message("seven", timeout_us=9))

    assert (message.model_name, message.id) == ("fingerprint", "seven")
    assert message.parameters["timeout"].int64_param == 9
    assert np.prod(message.inputs[0].shape) * 8 == len(message.raw_input_contents[0])


@pytest.mark.parametrize(
    ("version", "served", "changed", "problem"),
    [
        (3, 3, 0, ""),
        (3, 2, 0, "version: expected 3"),
        (3, 3, 1, "echo: expected"),
    ],
    ids=["right", "stale", "flipped"],
)
def test_answer_is_compared(version: int, served: int, changed: int, problem: str) -> None:
    question = oracle.fingerprint(Random(1), code_of(1, 1, 5, 0))
    message = pb.ModelInferRequest.FromString(question.message("seven"))
    shape = tuple(message.inputs[0].shape)
    rows = np.frombuffer(question.raw, np.int64).reshape(shape)
    hashes = oracle.hash_of(rows).tobytes()
    echo = bytes([question.raw[0] ^ changed]) + question.raw[1:]

    found = oracle.check_answer(question, answer(version, echo=echo, hashes=hashes, served=served))

    assert found.startswith(problem) and bool(found) == bool(problem)


def test_code_survives_the_wire() -> None:
    code = code_of(3, 2, 123_456, 7)

    assert code_on_the_wire(wire_id(code)) == code
    assert code_on_the_wire("probe") is None
    assert code_on_the_wire("soak-zz") is None
