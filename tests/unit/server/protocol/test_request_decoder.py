import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb
from weir.protocol.datatypes import DATATYPES, to_raw
from weir.server.errors import InvalidRequest, ResponseTooLarge
from weir.server.protocol import request_decoder
from weir.server.protocol.response_encoder import (
    Output,
    ResponseEncoder,
    as_streamed,
    classify,
    rank,
)
from weir.server.runtime.signature import Form, Signature, TensorSpec

Array = NDArray[Any]
NUMBERS = sorted(set(DATATYPES) - {"BYTES", "BOOL"})
INTEGERS = {name: np.iinfo(DATATYPES[name].dtype.str) for name in NUMBERS if "INT" in name}
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def request_of(
    datatype: str,
    shape: Sequence[int],
    *,
    raw: bytes | None = None,
    contents: pb.InferTensorContents | None = None,
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=datatype, shape=shape, contents=contents)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def decode(message: pb.ModelInferRequest) -> dict[str, Array]:
    """As a model without a batch axis would, that takes whatever shape was sent."""
    forms = request_decoder.forms(message.inputs)
    inputs = [TensorSpec(name, datatype, (None,) * len(shape)) for name, datatype, shape in forms]
    Signature(inputs, (), batch_axis=None, max_rows=1).admit(forms)
    return request_decoder.decode_inputs(message.inputs, forms, message.raw_input_contents)


def contents_of(datatype: str, values: Sequence[Any]) -> pb.InferTensorContents:
    field = DATATYPES[datatype].contents
    assert field is not None
    return pb.InferTensorContents(**{field: values})


def bits(array: Array) -> bytes:
    """Compared like this, a NaN is itself."""
    return array.tobytes()


@given(st.sampled_from(NUMBERS), shapes, st.data())
def test_raw_numbers_arrive_bit_by_bit(
    datatype: str, shape: tuple[int, ...], data: st.DataObject
) -> None:
    size = math.prod(shape) * DATATYPES[datatype].dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))

    array = decode(request_of(datatype, shape, raw=raw))["x"]

    assert array.shape == shape
    assert array.dtype == DATATYPES[datatype].dtype
    assert bits(array) == raw


@given(st.sampled_from(sorted(INTEGERS)), st.data())
def test_typed_integers_arrive(datatype: str, data: st.DataObject) -> None:
    bounds = INTEGERS[datatype]
    values = data.draw(st.lists(st.integers(int(bounds.min), int(bounds.max)), max_size=6))
    message = request_of(datatype, (len(values),), contents=contents_of(datatype, values))

    array = decode(message)["x"]

    assert array.dtype == DATATYPES[datatype].dtype
    assert array.tolist() == values


@given(st.sampled_from([("FP32", 32), ("FP64", 64)]), st.data())
def test_typed_floats_arrive(kind: tuple[str, int], data: st.DataObject) -> None:
    datatype, width = kind
    values = data.draw(st.lists(st.floats(width=width), max_size=6))  # type: ignore[arg-type]
    message = request_of(datatype, (len(values),), contents=contents_of(datatype, values))

    array = decode(message)["x"]

    np.testing.assert_array_equal(array, np.array(values, DATATYPES[datatype].dtype))


@given(st.lists(st.booleans(), max_size=6), st.booleans())
def test_booleans_arrive(values: list[bool], is_raw: bool) -> None:  # noqa: FBT001
    message = (
        request_of("BOOL", (len(values),), raw=bytes(values))
        if is_raw
        else request_of("BOOL", (len(values),), contents=contents_of("BOOL", values))
    )

    assert decode(message)["x"].tolist() == values


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(texts, max_size=6), st.booleans())
def test_strings_arrive_as_text(values: list[str], is_raw: bool) -> None:  # noqa: FBT001
    encoded = [value.encode() for value in values]
    raw = b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    message = (
        request_of("BYTES", (len(values), 1), raw=raw)
        if is_raw
        else request_of("BYTES", (len(values), 1), contents=contents_of("BYTES", encoded))
    )

    array = decode(message)["x"]

    assert array.shape == (len(values), 1)
    assert array.ravel().tolist() == values


def test_scalar_has_no_axes() -> None:
    array = decode(request_of("FP32", (), raw=struct.pack("<f", 1.5)))["x"]

    assert array.shape == ()
    assert array == 1.5


def test_raw_numbers_are_viewed_not_copied() -> None:
    message = request_of("FP32", (4,), raw=bytes(16))

    array = decode(message)["x"]

    assert not array.flags.owndata
    assert not array.flags.writeable


def test_several_inputs_take_their_raw_contents_in_order() -> None:
    message = request_of("INT32", (1,), raw=struct.pack("<i", 7))
    message.inputs.add(name="other", datatype="INT32", shape=[1])
    message.raw_input_contents.append(struct.pack("<i", 8))

    arrays = decode(message)

    assert {name: array.tolist() for name, array in arrays.items()} == {"x": [7], "other": [8]}


FP32 = struct.pack("<4f", 1, 2, 3, 4)
REFUSED = {
    "A10 raw too short": (request_of("FP32", (4,), raw=FP32[:-4]), "expected 16 bytes, got 12"),
    "A10 raw too long": (request_of("FP32", (4,), raw=FP32 * 2), "expected 16 bytes, got 32"),
    "A10 raw cuts an element": (request_of("FP32", (4,), raw=FP32[:-1]), "expected 16 .* got 15"),
    "A10 raw for no element": (request_of("FP32", (0,), raw=b"\0"), "expected 0 bytes, got 1"),
    "A11 raw and typed": (
        request_of("FP32", (4,), raw=FP32, contents=contents_of("FP32", [1, 2, 3, 4])),
        "contents and raw_input_contents are both set",
    ),
    "A11 raw and empty typed": (
        request_of("FP32", (4,), raw=FP32, contents=pb.InferTensorContents()),
        "contents and raw_input_contents are both set",
    ),
    "A11 wrong field": (
        request_of("FP32", (1,), contents=contents_of("FP64", [1.0])),
        r"FP32 belongs in fp32_contents, got \['fp64_contents'\]",
    ),
    "A11 two fields": (
        request_of(
            "FP32", (1,), contents=pb.InferTensorContents(fp32_contents=[1], int_contents=[1])
        ),
        "FP32 belongs in fp32_contents",
    ),
    "A11 typed FP16": (
        request_of("FP16", (1,), contents=contents_of("FP32", [1.0])),
        "FP16 travels only as raw_input_contents",
    ),
    "A11 typed BF16": (request_of("BF16", (1,)), "BF16 travels only as raw_input_contents"),
    "A12 too few": (
        request_of("FP32", (2,), contents=contents_of("FP32", [1.0])),
        "expected 2 elements, got 1",
    ),
    "A12 too many": (
        request_of("FP32", (1,), contents=contents_of("FP32", [1.0, 2.0])),
        "expected 1 elements, got 2",
    ),
    "A12 none": (request_of("FP32", (1,)), "expected 1 elements, got 0"),
    "A13 UINT8 300": (
        request_of("UINT8", (2,), contents=contents_of("UINT8", [0, 300])),
        "expected UINT8 values from 0 to 255, got 0 to 300",
    ),
    "A13 INT8 -129": (
        request_of("INT8", (1,), contents=contents_of("INT8", [-129])),
        "expected INT8 values from -128 to 127, got -129 to -129",
    ),
    "A13 INT16 2**15": (
        request_of("INT16", (1,), contents=contents_of("INT16", [2**15])),
        "expected INT16 values from -32768 to 32767",
    ),
    "A14 length past the end": (
        request_of("BYTES", (1,), raw=b"\x05\0\0\0abc"),
        "element 0 of 1 ends past the 7 bytes",
    ),
    "A14 too many elements": (
        request_of("BYTES", (1,), raw=b"\0\0\0\0" * 2),
        "expected 1 elements",
    ),
    "A14 too few elements": (request_of("BYTES", (2,), raw=b"\0\0\0\0"), "expected 2 elements"),
    "A14 no UTF-8": (
        request_of("BYTES", (1,), raw=b"\x01\0\0\0\xff"),
        "is no valid UTF-8, as ONNX strings must be",
    ),
    "A14 no UTF-8, typed": (
        request_of("BYTES", (1,), contents=contents_of("BYTES", [b"\xff"])),
        "is no valid UTF-8, as ONNX strings must be",
    ),
    "A15 too many axes": (request_of("FP32", (1,) * 33, raw=bytes(4)), "at most 32 axes, got 33"),
    "A08 element count of BYTES": (
        request_of("BYTES", (2**39,), raw=bytes(64)),
        "expected 549755813888 elements, got 64 bytes",
    ),
    "A08 element count of numbers": (
        request_of("INT64", (2**39,), raw=bytes(64)),
        "expected 4398046511104 bytes, got 64",
    ),
    "B09 boolean 2": (request_of("BOOL", (2,), raw=b"\1\2"), "a BOOL is a byte 0 or 1"),
}


@pytest.mark.parametrize(("message", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_contents_that_do_not_fit_are_refused(message: pb.ModelInferRequest, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        decode(message)


@pytest.mark.parametrize("count", [0, 2], ids=["too few", "too many"])
def test_raw_contents_are_one_an_input(count: int) -> None:
    message = request_of("FP32", (1,))
    message.inputs.add(name="z", datatype="FP32", shape=[1])
    message.raw_input_contents.extend([bytes(4)] * (count + 1))

    with pytest.raises(InvalidRequest, match=f"expected 2 entries, one an input, got {count + 1}"):
        decode(message)


@given(st.binary(max_size=64), st.sampled_from(sorted(DATATYPES)), shapes)
def test_any_contents_fit_or_are_an_invalid_request(
    raw: bytes, datatype: str, shape: tuple[int, ...]
) -> None:
    try:
        array = decode(request_of(datatype, shape, raw=raw))["x"]
    except InvalidRequest:
        return

    assert array.shape == shape


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_invalid_request(payload: bytes) -> None:
    try:
        message = request_decoder.parse_request(payload)
    except InvalidRequest:
        with pytest.raises(DecodeError):
            pb.ModelInferRequest.FromString(payload)
    else:
        assert message == pb.ModelInferRequest.FromString(payload)


def test_empty_message_is_an_empty_request() -> None:
    assert request_decoder.parse_request(b"") == pb.ModelInferRequest()


def encode(outputs: Sequence[Output], request_id: str = "", most: int = 1 << 24) -> bytes:
    return ResponseEncoder("model", "3", max_bytes=most).encode(request_id, outputs)


@given(st.sampled_from(NUMBERS), shapes, st.data())
def test_answer_holds_its_outputs_bit_by_bit(
    datatype: str, shape: tuple[int, ...], data: st.DataObject
) -> None:
    size = math.prod(shape) * DATATYPES[datatype].dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(raw, DATATYPES[datatype].dtype).reshape(shape)

    answer = pb.ModelInferResponse.FromString(encode([Output("y", datatype, array)]))

    assert [(each.name, each.datatype, tuple(each.shape)) for each in answer.outputs] == [
        ("y", datatype, shape)
    ]
    assert list(answer.raw_output_contents) == [raw]
    assert not answer.outputs[0].HasField("contents")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_answer_is_the_message_protobuf_would_write(request_id: str) -> None:
    rows, strings = np.arange(6, dtype="<f4").reshape(2, 3), np.array(["a", ""], object)
    expected = pb.ModelInferResponse(model_name="model", model_version="3", id=request_id)
    for name, datatype, array in [("y", "FP32", rows), ("s", "BYTES", strings)]:
        expected.outputs.add(name=name, datatype=datatype, shape=array.shape)
        expected.raw_output_contents.append(to_raw(array))

    answer = encode([Output("y", "FP32", rows), Output("s", "BYTES", strings)], request_id)

    assert pb.ModelInferResponse.FromString(answer) == expected


@pytest.mark.parametrize("size", [0, 31, 32, 4095, 4096, 1 << 20])
def test_answer_of_any_size_can_be_read(size: int) -> None:
    array = np.zeros(size, "<f4")

    answer = pb.ModelInferResponse.FromString(encode([Output("y", "FP32", array)]))

    assert len(answer.raw_output_contents[0]) == 4 * size


def test_answers_of_one_encoder_do_not_mix() -> None:
    encoder = ResponseEncoder("model", "3", max_bytes=1 << 20)
    forms: list[tuple[str, Sequence[int]]] = [("y", (1, 2)), ("y", (2, 2)), ("z", (1, 2))]

    for number, (name, shape) in enumerate([*forms, *forms]):
        array = np.full(shape, number, "<f4")
        answer = pb.ModelInferResponse.FromString(
            encoder.encode(f"id-{number}", [Output(name, "FP32", array)])
        )

        assert answer.id == f"id-{number}"
        assert answer.outputs[0].name == name
        assert list(answer.outputs[0].shape) == list(shape)
        assert answer.raw_output_contents[0] == struct.pack("<f", number) * math.prod(shape)


def test_many_shapes_do_not_confuse_an_encoder() -> None:
    encoder = ResponseEncoder("model", "3", max_bytes=1 << 20)

    for _ in range(2):
        for rows in range(1500):
            payload = encoder.encode("", [Output("y", "UINT8", np.zeros(rows, np.uint8))])

            assert list(pb.ModelInferResponse.FromString(payload).outputs[0].shape) == [rows]


def test_answer_over_the_limit_is_refused_with_the_limit() -> None:
    output = Output("y", "UINT8", np.zeros(1000, np.uint8))
    whole = len(encode([output]))

    encode([output], most=whole)
    with pytest.raises(ResponseTooLarge, match=f"has {whole} bytes, the limit is {whole - 1}"):
        encode([output], most=whole - 1)


@pytest.mark.parametrize("size", [0, 1000], ids=["small", "large"])
def test_streamed_answer_is_final_and_otherwise_the_same(size: int) -> None:
    answer = encode([Output("y", "UINT8", np.zeros(size, np.uint8))], "id")
    expected = pb.ModelInferResponse.FromString(answer)
    expected.parameters["triton_final_response"].bool_param = True

    streamed = pb.ModelStreamInferResponse.FromString(as_streamed(answer))

    assert streamed == pb.ModelStreamInferResponse(infer_response=expected)


@pytest.mark.parametrize(
    ("count", "labels", "expected"),
    [
        pytest.param(1, None, [["0.500000:2"], ["0.900000:0"]], id="best"),
        pytest.param(
            2,
            ["a", "b", "c"],
            [["0.500000:2:c", "0.300000:1:b"], ["0.900000:0:a", "0.100000:1:b"]],
            id="with labels",
        ),
        pytest.param(1, ["a", "b"], [["0.500000:2"], ["0.900000:0:a"]], id="too few labels"),
    ],
)
def test_classes_are_listed_best_first(
    count: int, labels: list[str] | None, expected: list[list[str]]
) -> None:
    scores = np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]])

    texts = classify(scores, count, labels)

    assert [[text.decode() for text in row] for row in texts] == expected


def test_more_classes_than_there_are_means_all() -> None:
    assert classify(np.array([1.0, 2.0]), 2**31 - 1, None).shape == (2,)


def test_equal_classes_keep_their_order() -> None:
    texts = classify(np.array([1, 1, 1], np.int64), 3, None)

    assert [text.split(b":")[1] for text in texts] == [b"0", b"1", b"2"]


@given(st.lists(st.floats(width=32), min_size=1, max_size=8), st.integers(1, 9))
def test_classes_are_the_largest_values(values: list[float], count: int) -> None:
    array = np.array(values, "<f4")

    indices = [int(text.split(b":")[1]) for text in classify(array, count, None)]

    chosen = sorted((value for value in array[indices] if not np.isnan(value)), reverse=True)
    largest = sorted((value for value in array if not np.isnan(value)), reverse=True)
    assert len(set(indices)) == len(indices) == min(count, len(values))
    assert chosen == largest[: len(chosen)]
    assert len(chosen) == min(count, len(largest))


def test_unsigned_classes_are_not_negated_around() -> None:
    texts = classify(np.array([0, 200, 255], np.uint8), 1, None)

    assert texts.tolist() == [b"255.000000:2"]


def test_form_is_name_datatype_and_shape() -> None:
    expected: tuple[Form, ...] = (("x", "FP32", (2, 3)),)

    assert request_decoder.forms(request_of("FP32", (2, 3)).inputs) == expected


def test_classes_beyond_what_is_worth_writing_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected at most 10000 classes in all, got 20000"):
        classify(np.zeros((20, 1000)), 1000, None)


def classes_of(probabilities: Any, *arguments: Any) -> list[list[tuple[str, int, float]]]:
    return [
        [(each.label, each.index, each.probability) for each in classes]
        for classes in rank(probabilities, *arguments)
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_classes_of_each_row_come_best_first(dtype: type[np.floating[Any]]) -> None:
    probabilities = np.array([[0.25, 0.5, 0.125], [0.75, 0.0, 0.75]], dtype)

    classes = classes_of(probabilities, 2, ["a", "b"])

    assert classes == [[("b", 1, 0.5), ("a", 0, 0.25)], [("a", 0, 0.75), ("", 2, 0.75)]]


def test_all_classes_come_if_more_are_requested() -> None:
    classes = classes_of(np.array([[0.25, 0.75]]), 2**32 - 1, None)

    assert classes == [[("", 1, 0.75), ("", 0, 0.25)]]


def test_answer_over_the_limit_of_a_message_is_refused() -> None:
    encoder = ResponseEncoder("model", "3", max_bytes=100)

    assert encoder.checked(tasks_pb.TagResponse(id="seven").SerializeToString()) == b"\x1a\x05seven"
    with pytest.raises(ResponseTooLarge, match="the answer has 102 bytes, the limit is 100"):
        encoder.checked(tasks_pb.TagResponse(id="a" * 100).SerializeToString())
