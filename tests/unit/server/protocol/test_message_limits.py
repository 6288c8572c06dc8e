import itertools
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.protobuf_wire import field, varint
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb
from weir.server.errors import InvalidRequest
from weir.server.protocol import message_limits
from weir.server.protocol.message_limits import (
    INLINE_ELEMENTS,
    SMALL_BYTES,
    check_counts,
    check_texts,
    has_few_parts,
    read_texts,
)

# What an honest request needs, and then some.
MAX_STEPS = 400_000
PADDING = 2 * SMALL_BYTES


def steps_of(call: Callable[[], object]) -> int:
    """How many functions of the guard a call goes through: its cost, whatever the machine's."""
    counter = itertools.count()

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename == message_limits.__file__:
            next(counter)

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return next(counter)


EMPTY_INPUT = field(5, b"")
EMPTY_OUTPUT = field(6, b"")
EMPTY_STRING = field(8, b"")

PARTS = {
    "inputs": EMPTY_INPUT * 20_000,
    "outputs": EMPTY_OUTPUT * 20_000,
    "parameters": field(4, b"") * 20_000,
    "raw contents": field(7, b"") * 20_000,
    "unknown fields": field(99, b"") * 20_000,
    "parameters of an input": field(5, field(4, b"") * 20_000),
    "parameters of an output": field(6, field(2, b"") * 20_000),
    "packed axes": field(5, field(3, bytes(5000))),
    "single axes": field(5, b"\x18\x01" * 20_000),
    "typed strings": field(5, field(5, EMPTY_STRING * 70_000)),
    "unpacked numbers": field(5, field(5, b"\x18\x01" * 70_000)),
    "typed strings of many contents": field(5, field(5, EMPTY_STRING * 3000) * 100),
    "typed strings of many inputs": field(5, field(5, EMPTY_STRING * 3000)) * 100,
}


@pytest.mark.parametrize("payload", PARTS.values(), ids=PARTS.keys())
def test_message_of_absurdly_many_parts_is_refused(payload: bytes) -> None:
    assert len(payload) > SMALL_BYTES

    with pytest.raises(InvalidRequest):
        check_counts(payload)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(EMPTY_INPUT * (1 << 25), id="64 MiB of empty inputs"),
        pytest.param(EMPTY_OUTPUT * (1 << 25), id="64 MiB of empty outputs"),
        pytest.param(field(5, field(5, EMPTY_STRING * 8000)) * 1000, id="16 MB of typed strings"),
        pytest.param(field(5, field(3, b"") * 1000) * 1000, id="empty shapes"),
        pytest.param(field(6, field(2, b"") * 1000) * 1000, id="parameters of outputs"),
        pytest.param(field(5, bytes(1 << 24)), id="an input of zeros"),
    ],
)
def test_cost_is_bounded_whatever_the_size(payload: bytes) -> None:
    def check() -> None:
        with pytest.raises(InvalidRequest):
            check_counts(payload)

    assert steps_of(check) < MAX_STEPS


@pytest.mark.parametrize("payload", PARTS.values(), ids=PARTS.keys())
def test_message_of_many_parts_is_not_counted_to_its_end(payload: bytes) -> None:
    def count() -> None:
        with suppress(InvalidRequest):
            assert not has_few_parts(payload)

    assert steps_of(count) < 8 * INLINE_ELEMENTS


@pytest.mark.parametrize(
    ("strings", "is_few"),
    [pytest.param(4096, True, id="few"), pytest.param(4097, False, id="many")],
)
def test_message_has_few_parts_up_to_a_limit(strings: int, is_few: bool) -> None:  # noqa: FBT001
    payload = field(5, field(5, EMPTY_STRING * strings))

    assert has_few_parts(payload) is is_few
    check_counts(payload)


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        (field(9, b""), "too many fields in the request, expected at most 16384"),
        (EMPTY_INPUT, "inputs: expected at most 1024, got more"),
        (EMPTY_OUTPUT, "outputs: expected at most 1024, got more"),
    ],
)
def test_refusal_names_the_part(piece: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_counts(piece * 20_000)


@pytest.mark.parametrize("piece", [field(5, field(1, b"name")), field(6, field(1, b"name"))])
def test_as_many_tensors_as_a_graph_may_have_are_taken(piece: bytes) -> None:
    assert len(piece) * 1024 > SMALL_BYTES

    check_counts(piece * 1024)
    with pytest.raises(InvalidRequest):
        has_few_parts(piece * 1025)


@given(st.binary(max_size=64), st.integers(0, 3))
def test_any_bytes_pass_or_are_an_invalid_request(noise: bytes, nesting: int) -> None:
    payload = noise + field(7, bytes(PADDING)) + noise
    for _ in range(nesting):
        payload = field(5, payload)

    try:
        check_counts(payload)
    except InvalidRequest:
        return


@given(st.binary(min_size=1, max_size=8), st.integers(SMALL_BYTES + 1, 3 * SMALL_BYTES))
def test_repeated_bytes_pass_or_are_an_invalid_request(noise: bytes, size: int) -> None:
    payload = (noise * size)[:size]

    try:
        check_counts(payload)
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"\xff" * 12, id="number without an end"),
        pytest.param(b"\x2a\xff", id="length without an end"),
        pytest.param(b"\x2a\x7f", id="field past the end"),
        pytest.param(b"\x09\x00", id="fixed64 past the end"),
        pytest.param(b"\x0d\x00", id="fixed32 past the end"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(varint(5 << 3 | 2) + varint(2**64 - 1), id="length of 2**64 - 1"),
        pytest.param(field(5, b"\x2a\x7f"), id="field past the end of an input"),
    ],
)
def test_malformed_message_is_refused(end: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no valid protobuf"):
        check_counts(field(7, bytes(PADDING)) + end)


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            pb.ModelInferRequest.InferInputTensor,
            name=st.text(max_size=9),
            datatype=st.just("FP32"),
            shape=st.lists(st.integers(-1, 2**63 - 1), max_size=8),
            contents=st.builds(
                pb.InferTensorContents,
                fp32_contents=st.lists(st.floats(width=32), max_size=20),
                bytes_contents=st.lists(st.binary(max_size=9), max_size=20),
            ),
        ),
        max_size=9,
    ),
    st.lists(st.binary(max_size=30), max_size=9),
)
def test_honest_messages_pass(
    inputs: list[pb.ModelInferRequest.InferInputTensor], raw: list[bytes]
) -> None:
    message = pb.ModelInferRequest(inputs=inputs, raw_input_contents=[bytes(PADDING), *raw])
    message.outputs.add(name="y").parameters["classification"].int64_param = 3
    message.parameters["priority"].uint64_param = 2**64 - 1

    check_counts(message.SerializeToString())


def test_many_packed_numbers_pass() -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="x").contents.fp32_contents.extend([0.5] * 500_000)

    check_counts(message.SerializeToString())


@pytest.mark.parametrize("size", range(32_765, 32_770))
def test_packed_numbers_of_several_inputs_pass(size: int) -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="a").contents.fp32_contents.extend([0.5] * size)
    message.inputs.add(name="b").contents.fp32_contents.append(0.5)

    check_counts(message.SerializeToString())


def test_field_of_another_wire_type_is_none_of_those_that_are_looked_for() -> None:
    """Protobuf skips it as an unknown field."""
    other = varint(5 << 3) + varint(2**64 - 1)
    payload = field(7, bytes(PADDING)) + other

    check_counts(payload)
    assert has_few_parts(payload)
    assert read_texts(field(1, b"model") + varint(1 << 3) + varint(65), 1) == ["model"]


def test_cost_of_an_honest_picture_is_a_handful_of_steps() -> None:
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(1 << 20)])
    message.inputs.add(name="image", datatype="UINT8", shape=[1, 512, 512, 4])
    payload = message.SerializeToString()

    assert steps_of(lambda: check_counts(payload)) < 50


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.lists(st.binary(max_size=300), max_size=5),
)
def test_texts_are_read_as_protobuf_would(name: str, version: str, files: list[bytes]) -> None:
    message = tasks_pb.ClassifyRequest(
        model_name=name, model_version=version, id="id", top_k=2**32 - 1
    )
    for file in files:
        message.pictures.add(encoded=file)

    assert read_texts(message.SerializeToString(), 1, 2) == [name, version]


def test_last_of_a_repeated_text_counts() -> None:
    assert read_texts(field(1, b"first") + field(1, b"last"), 1) == ["last"]


@given(st.binary(max_size=64))
def test_texts_of_any_bytes_are_read_or_refused(noise: bytes) -> None:
    with suppress(InvalidRequest):
        read_texts(noise, 1, 2)


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="field 1: expected UTF-8"):
        read_texts(field(1, b"\xff"), 1)


def test_texts_of_absurdly_many_fields_are_refused() -> None:
    """Sooner than those of a message that a worker parses: the transport's thread looks at them."""
    payload = field(1, b"model") + field(4, b"") * 2_000_000

    with pytest.raises(InvalidRequest, match="too many fields"):
        read_texts(payload, 1)
    assert steps_of(lambda: refused(payload)) < MAX_STEPS / 20


def refused(payload: bytes) -> None:
    with suppress(InvalidRequest):
        read_texts(payload, 1)


def of_tokens(count: int) -> bytes:
    """A request of so many empty tokens, in two texts."""
    texts = [tasks_pb.Text(tokens=tasks_pb.Tokens(tokens=[""] * (count // 2)))] * 2
    return tasks_pb.TagRequest(texts=texts).SerializeToString()


def test_tokens_are_counted_before_they_are_made() -> None:
    check_texts(of_tokens(16_000))

    with pytest.raises(InvalidRequest, match="too many tokens in the request, expected at most"):
        check_texts(of_tokens(17_000))


def test_counting_millions_of_tokens_stops_at_the_limit() -> None:
    payload = of_tokens(4_000_000)

    def count() -> None:
        with suppress(InvalidRequest):
            check_texts(payload)

    assert steps_of(count) < MAX_STEPS


def test_a_long_text_is_one_part() -> None:
    check_texts(tasks_pb.TagRequest(texts=[tasks_pb.Text(text="a" * 100_000)]).SerializeToString())
