"""The catalogue of faults: each row is a test that carries its number; `docs/faults.md` lists them.

Rule of every row: the status as listed, within the deadline, and the next good request on the same
channel is answered right (the fixture `client` sends it).
"""

import io
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest
from PIL import Image

from tests.helpers.http2_client import Answer, Http2Client
from tests.helpers.image_files import JPEG, PNG, UPRIGHT
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    SERVICE,
    Client,
    Server,
    Tensor,
    X,
    burn,
    expect_right_answer,
    failure,
    request,
    running,
    tensor,
)
from weir.protocol import inference_pb2 as pb
from weir.server.services.inference import InferenceService
from weir.server.transport.base import Limits, Transport
from weir.server.transport.completion_queue import CompletionQueueTransport
from weir.server.transport.grpc_server import GrpcServerTransport
from weir.server.transport.wakeups import Wakeups

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
LATE = grpc.StatusCode.DEADLINE_EXCEEDED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

MESSAGE_LIMIT = 32 * 1024 * 1024


@pytest.fixture
def client(house: Server) -> Iterator[Client]:
    """A channel that must still give right answers when the test is over."""
    with Client(house.target) as client:
        yield client
        expect_right_answer(client)
    # An answer is sent before it is counted, and the next test may count.
    house.settle()


@dataclass(frozen=True)
class Fault:
    """A request, the status it must get, and what the message must say."""

    row: str
    what: str
    build: Callable[[], pb.ModelInferRequest | bytes]
    status: grpc.StatusCode = INVALID
    says: str = ""


def shaped(*shape: int, datatype: str = "FP32", raw: bytes = b"", model: str = "affine") -> Any:
    """A request whose shape need not fit its bytes."""
    return lambda: request(model, Tensor("x", datatype, shape, raw))


def typed(datatype: str, shape: tuple[int, ...] = (1, 4), **contents: Any) -> Any:
    """A request with typed contents."""

    def build() -> pb.ModelInferRequest:
        message = pb.ModelInferRequest(model_name=f"echo_{datatype}")
        item = message.inputs.add(name="x", datatype=datatype, shape=shape)
        item.contents.CopyFrom(pb.InferTensorContents(**contents))
        return message

    return build


def both_raw_and_typed() -> pb.ModelInferRequest:
    message = request("affine", GOOD)
    message.inputs[0].contents.fp32_contents.extend(X[0].tolist())
    return message


def asking_for(*names: str) -> Any:
    """A good request that asks for these outputs."""

    def build() -> pb.ModelInferRequest:
        message = request("affine", GOOD)
        for name in names:
            message.outputs.add(name=name)
        return message

    return build


def with_parameter(key: str, **choice: Any) -> Any:
    """A good request with one parameter."""
    return lambda: request("affine", GOOD, parameters={key: pb.InferParameter(**choice)})


def with_many_parameters() -> pb.ModelInferRequest:
    parameter = pb.InferParameter(int64_param=1)
    return request("affine", GOOD, parameters={f"key {n}": parameter for n in range(1000)})


def with_tensor_parameter(where: str) -> Any:
    """A good request that asks for shared memory."""

    def build() -> pb.ModelInferRequest:
        message = request("affine", GOOD)
        if where == "output":
            message.outputs.add(name="y")
            parameters = message.outputs[0].parameters
        else:
            parameters = message.inputs[0].parameters
        parameters["shared_memory_region"].string_param = "region"
        return message

    return build


def field_of_length(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field, as bytes."""
    length, size = b"", len(data)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def many_axes() -> bytes:
    """Four million axes of size one, packed, in one input of a good request's beginning."""
    shape = field_of_length(3, b"\x01" * 4_000_000)
    item = field_of_length(1, b"x") + field_of_length(2, b"FP32") + shape
    return field_of_length(1, b"affine") + field_of_length(5, item)


def named(model: str, version: str = "") -> Any:
    """A good request of another name or version."""
    return lambda: request(model, GOOD, model_version=version)


def strings(raw: bytes, count: int = 4) -> Any:
    """A request with these bytes as its four strings."""
    return lambda: request("echo_BYTES", Tensor("x", "BYTES", (1, count), raw))


def prefixed(*items: bytes) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


REQUESTS = [
    Fault("A01", "dtype", shaped(1, 4, datatype="FP64", raw=bytes(32)), says="expected FP32, got"),
    Fault("A01", "unknown-dtype", shaped(1, 4, datatype="F"), says="expected FP32, got 'F'"),
    Fault("A02", "rank", shaped(4, raw=bytes(16)), says="expected 2 axes"),
    Fault("A02", "axis", shaped(1, 5, raw=bytes(20)), says="axis 1: expected 4, got 5"),
    Fault("A03", "missing", lambda: request("affine"), says="missing inputs: 'x'"),
    Fault("A03", "missing-one",
          lambda: request("arithmetic", tensor("a", X[:, :3])), says="missing inputs: 'b'"),
    Fault("A04", "extra", lambda: request("affine", GOOD, tensor("z", X)), says="'z'"),
    Fault("A04", "duplicate", lambda: request("affine", GOOD, GOOD), says="named twice: 'x'"),
    Fault("A05", "unknown-output", asking_for("y", "z"), says="unknown outputs: 'z'"),
    Fault("A05", "duplicate-output", asking_for("y", "y"), says="named twice: 'y'"),
    Fault("A06", "no-rows", shaped(0, 4), says="expected 1 or more on axis 0, got 0"),
    Fault("A07", "negative-axis", shaped(-1, 4, raw=bytes(16)), says="axis 0: expected 0 or more"),
    Fault("A08", "overflow-to-32", shaped(2**4, 2**60 + 2, raw=bytes(128), model="free")),
    Fault("A08", "overflow-to-8", shaped(2**2, 2**60 + 2, raw=bytes(32), model="free")),
    Fault("A08", "zero-times-much", shaped(0, 2**62, model="free")),
    Fault("A08", "largest", shaped(1, 2**63 - 1, model="free")),
    Fault("A09", "above-maximum", shaped(33, 4, raw=bytes(33 * 16)), says="at most 32 rows"),
    Fault("A09", "batch-2^31", shaped(2**31, 4, raw=bytes(16))),
    Fault("A09", "batch-2^32+1", shaped(2**32 + 1, 4, raw=bytes(16))),
    Fault("A10", "too-short", shaped(1, 4, raw=bytes(12)), says="expected 16 bytes, got 12"),
    Fault("A10", "too-long", shaped(1, 4, raw=bytes(20)), says="expected 16 bytes, got 20"),
    Fault("A10", "part-of-an-item", shaped(1, 4, raw=bytes(15)), says="expected 16 bytes, got 15"),
    Fault("A11", "raw-count", lambda: request(
        "affine", GOOD, raw_input_contents=[b"more"]), says="expected 1 entries"),
    Fault("A11", "raw-and-typed", both_raw_and_typed, says="both set"),
    Fault("A11", "wrong-list", typed("FP32", fp64_contents=[1.0] * 4), says="fp32_contents"),
    Fault("A11", "two-lists", typed("FP32", fp32_contents=[1.0] * 4, int_contents=[1])),
    Fault("A11", "typed-FP16", typed("FP16", fp32_contents=[1.0] * 4), says="raw_input_contents"),
    Fault("A11", "typed-BF16", typed("BF16", fp32_contents=[1.0] * 4), says="raw_input_contents"),
    Fault("A12", "too-few", typed("FP32", fp32_contents=[1.0] * 3), says="4 elements, got 3"),
    Fault("A12", "too-many", typed("FP32", fp32_contents=[1.0] * 5), says="4 elements, got 5"),
    Fault("A12", "none", typed("FP32"), says="expected 4 elements, got 0"),
    Fault("A13", "INT8", typed("INT8", int_contents=[300, 0, 0, 0]), says="from -128 to 127"),
    Fault("A13", "UINT8", typed("UINT8", uint_contents=[0, 256, 0, 0]), says="from 0 to 255"),
    Fault("A13", "INT16", typed("INT16", int_contents=[0, 0, -40000, 0]), says="from -32768"),
    Fault("A14", "prefix-past-the-end", strings(prefixed(b"a", b"b", b"c") + b"\xff\0\0\0d")),
    Fault("A14", "huge-prefix", strings(b"\xff\xff\xff\xff" + bytes(12))),
    Fault("A14", "too-few", strings(prefixed(b"a", b"b", b"c"))),
    Fault("A14", "too-many", strings(prefixed(*b"abcde".split(b"x"), *[b"y"] * 4))),
    Fault("A14", "not-UTF-8", strings(prefixed(b"a", b"\xff", b"c", b"d")), says="UTF-8"),
    Fault("A14", "typed-not-UTF-8", typed("BYTES", bytes_contents=[b"\xc3\x28"] * 4), says="UTF-8"),
    Fault("A15", "four-million-axes", many_axes, says="an input has far too many axes"),
    Fault("A15", "too-many-axes", shaped(*[1] * 33, raw=bytes(4)), says="at most 32 axes, got 33"),
    Fault("B09", "byte-2", lambda: request("echo_BOOL", Tensor("x", "BOOL", (1, 4), b"\0\1\2\0")),
          says="a BOOL is a byte 0 or 1"),
    Fault("A17", "thousand-parameters", with_many_parameters),
    Fault("A17", "reserved", with_parameter("triton_private", bool_param=True), says="reserved"),
    Fault("A17", "wrong-kind", with_parameter("timeout", string_param="1"), says="'timeout'"),
    Fault("A17", "empty", with_parameter("priority"), says="'priority'"),
    Fault("A17", "huge-timeout", with_parameter("timeout", int64_param=2**62), says="'timeout'"),
    Fault("A17", "negative-timeout", with_parameter("timeout", int64_param=-1), says="'timeout'"),
    Fault("A17", "huge-priority", with_parameter("priority", uint64_param=2**64 - 1)),
    Fault("A18", "megabyte-id", lambda: request("affine", GOOD, id="i" * 10**6), says="id: "),
    Fault("A18", "control-characters", lambda: request("affine", GOOD, id="a\nb\x1b[2J")),
    Fault("A19", "unknown-model", named("nothing"), NOT_FOUND, "unknown model 'nothing'"),
    Fault("A19", "unknown-version", named("affine", "8"), NOT_FOUND, "no version 8"),
    Fault("A19", "version-0", named("affine", "0"), NOT_FOUND),
    Fault("A19", "version-word", named("affine", "latest"), NOT_FOUND, "no label latest"),
    Fault("A19", "version-negative", named("affine", "-1"), says="version"),
    Fault("A19", "version-2^64", named("affine", str(2**64)), says="version"),
    Fault("A19", "version-spaced", named("affine", " 7"), says="version"),
    Fault("A19", "version-padded", named("affine", "07"), says="version"),
    Fault("A19", "version-arabic-digit", named("affine", "\u0667"), says="version"),
    *(
        Fault("A20", what, named(name), NOT_FOUND, "unknown model")
        for what, name in {
            "parent": "../etc",
            "through-a-model": "affine/../affine",
            "inside-a-model": "affine/7",
            "absolute": "/etc/passwd",
            "spaced-dots": " ..",
            "dot": ".",
            "trailing-slash": "affine/",
            "NUL": "affine\0",
            "long": "a" * 10_000,
            "look-alike": "\u2024\u2024/affine",
            "other-case": "Affine",
        }.items()
    ),
    Fault("A21", "empty-message", lambda: b""),
    Fault("A22", "sequence-number", with_parameter("sequence_id", int64_param=1), UNIMPLEMENTED),
    Fault("A22", "sequence-name", with_parameter("sequence_id", string_param="a"), UNIMPLEMENTED),
    Fault("A22", "shared-memory-input", with_tensor_parameter("input"), UNIMPLEMENTED),
    Fault("A22", "shared-memory-output", with_tensor_parameter("output"), UNIMPLEMENTED),
]  # fmt: skip


@pytest.mark.parametrize("fault", REQUESTS, ids=lambda fault: f"{fault.row}-{fault.what}")
def test_request(client: Client, house: Server, fault: Fault) -> None:
    rows = house.metric("weir_rows_total")

    error = failure(client.send(fault.build()))

    assert error.code() is fault.status, error.details()
    assert fault.says in (error.details() or "")
    assert len(error.details() or "") < 1000
    assert house.metric("weir_rows_total") == rows


@pytest.mark.parametrize("row", ["A21"])
@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig"])
def test_empty_message_of_other_calls(client: Client, method: str, row: str) -> None:
    error = failure(client.unary(method).future(b"", timeout=ANSWER_S))

    assert error.code() is INVALID


@pytest.mark.parametrize("row", ["A22"])
def test_parameters_that_say_there_is_no_sequence_pass(client: Client, row: str) -> None:
    nothing = {
        "sequence_id": pb.InferParameter(int64_param=0),
        "sequence_start": pb.InferParameter(bool_param=False),
        "sequence_end": pb.InferParameter(bool_param=False),
        "priority": pb.InferParameter(uint64_param=5),
        "triton_enable_empty_final_response": pb.InferParameter(bool_param=True),
        "my own": pb.InferParameter(string_param="anything"),
    }

    answer = client.infer("affine", GOOD, parameters=nothing)

    np.testing.assert_array_equal(answer["y"], 2 * X + 1)


@pytest.mark.parametrize(
    "field", [pytest.param(5, id="A16-inputs"), pytest.param(6, id="A16-outputs")]
)
def test_two_million_empty_parts(client: Client, field: int) -> None:
    message = field_of_length(1, b"affine") + field_of_length(field, b"") * 2_000_000
    with Client(client.target) as bystander:
        expect_right_answer(bystander)
        fault = client.send(message)
        expect_right_answer(bystander)

        error = failure(fault)

    assert error.code() is INVALID
    assert "puts: expected at most 1024, got more" in (error.details() or "")


def dear_strings() -> bytes:
    contents = field_of_length(8, b"") * 65_000
    item = field_of_length(1, b"x") + field_of_length(2, b"BYTES") + field_of_length(5, contents)
    return field_of_length(1, b"echo_BYTES") + field_of_length(5, item)


def dear_inputs() -> bytes:
    return field_of_length(1, b"affine") + field_of_length(5, b"") * 16_000


@pytest.mark.parametrize(
    ("build", "says"),
    [
        pytest.param(dear_strings, "expected", id="H07-strings"),
        pytest.param(dear_inputs, "inputs: expected at most 1024, got more", id="H07-inputs"),
    ],
)
def test_dear_message_is_refused_and_harms_no_other(
    client: Client, build: Callable[[], bytes], says: str
) -> None:
    with Client(client.target) as bystander:
        faults = [client.send(build()) for _ in range(20)]
        expect_right_answer(bystander)

        errors = [failure(fault) for fault in faults]

    assert {error.code() for error in errors} == {INVALID}
    assert all(says in (error.details() or "") for error in errors)


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["B01-nan", "B01-inf", "B01-ninf"])
def test_value_that_is_no_number_stays_in_its_row(
    client: Client, house: Server, value: float
) -> None:
    batches = house.metric("weir_batches_total", model="patient")
    odd = np.array([[1, value, 2, 3]], np.float32)

    first = client.send(request("patient", tensor("x", odd)))
    second = client.send(request("patient", GOOD))

    np.testing.assert_array_equal(output(first), 2 * odd + 1)
    np.testing.assert_array_equal(output(second), 2 * X + 1)
    house.wait_for_metric(batches + 1, "weir_batches_total", model="patient")


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["B01-nan", "B01-inf"])
def test_value_that_is_no_number_is_refused_where_the_operator_says_so(
    client: Client, value: float
) -> None:
    odd = np.array([[1, value, 2, 3]], np.float32)

    error = failure(client.send(request("strict", tensor("x", odd))))

    assert error.code() is INVALID
    assert error.details() == "input 'x': expected finite numbers, got NaN or infinity"
    np.testing.assert_array_equal(output(client.send(request("strict", GOOD))), 2 * X + 1)


@pytest.mark.parametrize("row", ["B04"])
def test_output_that_no_memory_holds_is_refused_and_the_session_lives(
    client: Client, row: str
) -> None:
    error = failure(client.send(request("sizer", tensor("size", np.array([2**44])))))

    assert error.code() in (EXHAUSTED, INVALID)
    found = client.infer("sizer", tensor("size", np.array([3])))
    np.testing.assert_array_equal(found["y"], np.zeros(3, np.float32))


@pytest.mark.parametrize("row", ["H06"])
def test_smallest_integer_is_divided_by_minus_one(client: Client, row: str) -> None:
    smallest = np.array([[np.iinfo(np.int64).min]])

    found = client.infer("quotient", tensor("a", smallest), tensor("b", np.array([[-1]])))

    np.testing.assert_array_equal(found["y"], smallest)
    expect_right_answer(client)


@pytest.mark.parametrize("row", ["B11"])
def test_sequence_of_no_steps_is_refused(client: Client, row: str) -> None:
    error = failure(client.send(request("recurrent", tensor("x", np.zeros((0, 1, 2), np.float32)))))

    assert error.code() is INVALID
    assert "input 'x': expected 1 or more elements" in (error.details() or "")
    expect_right_answer(client)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        pytest.param([[8]], "input 'tokens': expected values from 0 to 7, got 8", id="B02-size"),
        pytest.param([[2**63 - 1]], "from 0 to 7, got 9223372036854775807", id="B02-greatest"),
        pytest.param([[1, -1]], "from 0 to 7, got -1", id="B02-minus-one"),
        pytest.param([[1] * 17], "axis 'time': expected 1 to 16, got 17", id="B03-long"),
        pytest.param([[]], "axis 'time': expected 1 to 16, got 0", id="B03-empty"),
    ],
)
def test_sentence_the_model_has_no_meaning_for(
    client: Client, house: Server, tokens: list[list[int]], told: str
) -> None:
    batches = house.metric("weir_batches_total", model="sentences")

    call = client.send(request("sentences", tensor("tokens", np.array(tokens, np.int64))))

    error = failure(call)
    assert error.code() is INVALID
    assert told in (error.details() or "")
    assert house.metric("weir_batches_total", model="sentences") == batches
    good = client.send(request("sentences", tensor("tokens", np.array([[7, 0]]))))
    np.testing.assert_array_equal(output(good), [[70, 0]])


def output(call: Any, name: str = "y") -> Any:
    """One FP32 or INT64 tensor of the answer a call gets."""
    response = call.result()
    names = [item.name for item in response.outputs]
    item, raw = (
        response.outputs[names.index(name)],
        response.raw_output_contents[names.index(name)],
    )
    dtype = {"FP32": np.float32, "INT64": np.int64}[item.datatype]
    return np.frombuffer(raw, dtype).reshape(tuple(item.shape))


# Pictures

RED, GREEN = (255, 0, 0), (0, 255, 0)


def picture(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    ends = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + ends


def expect_right_class(client: Client, model: str = "colours") -> None:
    (result,) = client.classify(model, picture(Image.new("RGB", (30, 20), GREEN))).result().results
    assert [(each.label, each.probability) for each in result.classes[:1]] == [("green", 1.0)]


PHOTOGRAPH = picture(
    Image.effect_noise((60, 40), 90).convert("RGB"), "JPEG", quality=95, subsampling=0
)
TRUNCATED = "damaged or cut short"
PICTURES = {
    "B05-truncated-JPEG": (PHOTOGRAPH[: len(PHOTOGRAPH) // 2], "the JPEG is " + TRUNCATED),
    "B05-truncated-PNG": (
        picture(Image.effect_noise((60, 40), 90))[:-500],
        "the PNG is " + TRUNCATED,
    ),
    "B05-first-bytes-of-a-JPEG": (PHOTOGRAPH[:3], "the JPEG is " + TRUNCATED),
    "B05-empty": (b"", "expected JPEG or PNG, got no bytes"),
    "B05-text": (b"<html>not found</html>", "expected JPEG or PNG, got something else"),
    "B05-PNG-behind-the-mark-of-a-JPEG": (
        b"\xff\xd8\xff" + picture(Image.new("RGB", (9, 9), RED)),
        "the JPEG is " + TRUNCATED,
    ),
    "B06-20000x20000": (png_header(20_000, 20_000), "at most 32000000 pixels, got 20000 x 20000"),
    "B06-10000x10000": (png_header(10_000, 10_000), "at most 32000000 pixels, got 10000 x 10000"),
    "B06-10000x10000-whole": (
        picture(Image.new("1", (10_000, 10_000))),
        "at most 32000000 pixels, got 10000 x 10000",
    ),
    **{
        f"B07-{kind}": (
            picture(Image.new("RGB", (9, 9)), kind),
            f"expected JPEG or PNG, got {name}",
        )
        for kind, name in {"EPS": "EPS", "TIFF": "TIFF", "WEBP": "WebP", "BMP": "BMP"}.items()
    },
    "B07-HEIF": (
        b"\0\0\0\x18ftypheic" + bytes(500),
        "expected JPEG or PNG, got HEIF; convert it to JPEG",
    ),
    "B07-animated-GIF": (
        picture(
            Image.new("P", (9, 9)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (9, 9), 1)],
        ),
        "expected JPEG or PNG, got GIF",
    ),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())
def test_picture(client: Client, house: Server, data: tuple[bytes, str]) -> None:
    before = house.counts("counted_colours")
    file, says = data

    error = failure(client.classify("counted_colours", picture(Image.new("RGB", (9, 9))), file))

    assert error.code() is INVALID
    assert (error.details() or "").startswith("pictures[1]: ")
    assert says in (error.details() or "")
    house.wait_for_counts("counted_colours", before, INVALID_ARGUMENT=1)
    expect_right_class(client, "counted_colours")
    house.wait_for_counts("counted_colours", before, INVALID_ARGUMENT=1, OK=1, rows=1, batches=1)


@pytest.mark.parametrize("row", ["B05"])
def test_picture_is_what_its_bytes_say(client: Client, row: str, tmp_path: Path) -> None:
    """A name is nothing that is sent, so a wrong one cannot matter."""
    misnamed = tmp_path / "picture.jpg"
    misnamed.write_bytes(picture(Image.new("RGB", (9, 9), RED), "PNG"))

    (result,) = client.classify("colours", misnamed.read_bytes()).result().results

    assert result.classes[0].label == "red"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("row", ["H08"])
def test_request_of_too_many_pixels_is_refused_before_one_is_decompressed(
    client: Client, house: Server, row: str, kind: str
) -> None:
    before = house.metric("weir_preprocess_seconds_count", model="colours")
    large = picture(Image.new("L", (8000, 4000)), kind)

    error = failure(client.classify("colours", *[large] * 8))

    assert error.code() is INVALID
    assert error.details() == (
        "pictures: expected at most 128000000 pixels in a request, got 256000000"
    )
    assert house.metric("weir_preprocess_seconds_count", model="colours") == before


@pytest.mark.parametrize("row", ["B06"])
def test_largest_picture_is_answered(client: Client, row: str) -> None:
    small = Image.new("RGB", (8, 4), GREEN).quantize(2)
    largest = picture(small.resize((8000, 4000), Image.Resampling.NEAREST))

    (result,) = client.classify("colours", largest).result().results

    assert result.classes[0].label == "green"


def seen_pixels(client: Client, file: bytes) -> Any:
    """What reaches the model, (8, 8, 3)."""
    (result,) = client.classify("pixels", file, top_k=192).result().results
    values = {each.index: each.probability for each in result.classes}
    return np.array([values[index] for index in range(192)]).reshape(8, 8, 3)


@pytest.mark.parametrize("row", ["B07"])
def test_exif_rotation_is_applied(client: Client, row: str) -> None:
    upright = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)
    # As a camera held upright stores it: its first row is what is seen on the right.
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    tags = Image.Exif()
    tags[0x0112] = 6

    seen = seen_pixels(client, picture(stored, exif=tags.tobytes()))

    np.testing.assert_array_equal(seen, upright)


@pytest.mark.parametrize("row", ["H11"])
def test_metadata_refuse_no_picture(client: Client, row: str) -> None:
    small = {name: data for name, data in UPRIGHT.items() if len(data) < MESSAGE_LIMIT}
    calls = {name: client.classify("pixels", data, top_k=192) for name, data in small.items()}

    for name, call in calls.items():
        plain = client.classify("pixels", JPEG if name.startswith("JPEG") else PNG, top_k=192)
        assert call.result().results == plain.result().results, name


@pytest.mark.parametrize("row", ["B07"])
@pytest.mark.parametrize("profile", [b"", b"no profile at all" * 1000], ids=["none", "nonsense"])
def test_colour_profile_changes_nothing(client: Client, profile: bytes, row: str) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)

    seen = seen_pixels(client, picture(Image.fromarray(pixels), icc_profile=profile))

    np.testing.assert_array_equal(seen, pixels)


# Transport and protocol


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(MESSAGE_LIMIT + 1, id="C01-one-more"),
        pytest.param(10 * MESSAGE_LIMIT, id="C01-ten-times"),
    ],
)
def test_message_over_the_limit(client: Client, size: int) -> None:
    error = failure(client.send(bytes(size)))

    assert error.code() is EXHAUSTED


@pytest.mark.parametrize("row", ["C02"])
def test_answer_over_the_limit(client: Client, row: str) -> None:
    error = failure(client.send(request("sizer", tensor("size", np.array([9_000_000])))))

    assert error.code() is EXHAUSTED
    # 64 bytes of the limit are kept for what a stream puts around an answer.
    assert f"the limit is {MESSAGE_LIMIT - 64}" in (error.details() or "")


@pytest.mark.parametrize("row", ["C03"])
def test_gzip_bomb(client: Client, row: str) -> None:
    bomb = field_of_length(7, bytes(64 * 1024 * 1024))

    error = failure(client.send(bomb, compression=grpc.Compression.Gzip))

    assert error.code() is EXHAUSTED


@pytest.mark.parametrize("row", ["C03"])
def test_honest_compression_is_read(client: Client, row: str) -> None:
    call = client.send(request("affine", GOOD), compression=grpc.Compression.Gzip)

    np.testing.assert_array_equal(output(call), 2 * X + 1)


MALFORMED = {
    "noise": bytes(range(256)),
    "large-noise": bytes(range(256)) * 100,
    "cut-short": field_of_length(1, b"affine") + b"\x2a\xff\x01",
    "wrong-wire-type": b"\x08\x01",
    "bad-UTF-8": field_of_length(1, b"\xff\xfe"),
    "bad-UTF-8-id": field_of_length(1, b"affine") + field_of_length(3, b"\xc3\x28"),
    "endless-number": b"\x80" * 11,
    "nested-groups": b"\x0b" * 100_000,
    "few-nested-groups": b"\x7b" * 500,
    "huge-length": b"\x0a\xff\xff\xff\xff\x0f",
    "huge-length-large": bytes(8192).replace(b"\0\0", b"\x10\x01") + b"\x0a\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("what", MALFORMED, ids=lambda what: f"C04-{what}")
def test_malformed_message(client: Client, what: str) -> None:
    error = failure(client.send(MALFORMED[what]))

    assert error.code() in (INVALID, NOT_FOUND), error.details()
    if what != "wrong-wire-type":
        assert error.code() is INVALID


@pytest.mark.parametrize("row", ["C04"])
@pytest.mark.parametrize(
    "method",
    ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"],
)
def test_malformed_message_of_other_calls(client: Client, method: str, row: str) -> None:
    error = failure(client.unary(method).future(b"\x0a\xff", timeout=ANSWER_S))

    assert error.code() is INVALID
    assert method in (error.details() or "")


@pytest.mark.parametrize("row", ["C04"])
def test_malformed_message_on_a_stream_fails_alone(client: Client, row: str) -> None:
    good = request("affine", GOOD, id="good").SerializeToString()

    answers = list(client.stream(iter([good, MALFORMED["noise"], good])))

    assert sorted(answer.infer_response.id for answer in answers) == ["", "good", "good"]
    assert [bool(answer.error_message) for answer in answers].count(True) == 1


@pytest.mark.parametrize("row", ["C04"])
def test_malformed_message_of_reflection(client: Client, row: str) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

    start: Any = client.channel.stream_stream(method)
    call = start(iter([b"\x0a\xff"]), timeout=ANSWER_S)

    assert call.code() is INVALID


@pytest.mark.parametrize("row", ["C04"])
def test_malformed_message_of_health_asks_for_nothing_known(client: Client, row: str) -> None:
    check = client.unary("Check", "grpc.health.v1.Health").future(b"\x0a\xff", timeout=ANSWER_S)
    start: Any = client.channel.unary_stream("/grpc.health.v1.Health/Watch")
    watch = start(b"\x0a\xff", timeout=ANSWER_S)

    assert failure(check).code() is NOT_FOUND
    assert next(watch) == b"\x08\x03", "SERVICE_UNKNOWN"
    watch.cancel()


class Buggy:
    """Stands in for a repository and an admission with a bug."""

    is_draining = False
    is_ready = True

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"a secret in {name}")


@pytest.mark.parametrize("row", ["C05"])
@pytest.mark.parametrize("method", ["ModelMetadata", "ModelInfer", "ModelStreamInfer"])
def test_bug_is_internal_with_an_id_and_no_text(
    transport: str, method: str, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    buggy: Any = Buggy()
    handlers = InferenceService(buggy, buggy).handlers()
    server: Transport = (
        CompletionQueueTransport("127.0.0.1:0", handlers, Limits(), Wakeups())
        if transport == "completion-queue"
        else GrpcServerTransport("127.0.0.1:0", handlers, Limits())
    )
    server.start()
    with Client(f"127.0.0.1:{server.port}") as client:
        message = request("affine", GOOD).SerializeToString()
        if method == "ModelStreamInfer":
            call = client.stream(iter([message]))
        else:
            call = client.unary(method).future(message, timeout=ANSWER_S)
        code, details = call.code(), call.details()
        live = client.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    server.stop(0.0)

    assert code is grpc.StatusCode.INTERNAL
    assert re.fullmatch(r"internal error( [0-9a-f]{12})?", details)
    assert "a secret" in caplog.text
    assert live.live


@pytest.mark.parametrize("row", ["C06"])
@pytest.mark.parametrize(
    "path",
    [
        f"/{SERVICE}/Nothing",
        "/nothing.Service/ModelInfer",
        f"/{SERVICE}/",
        "/",
        f"/{SERVICE}/x" * 99,
    ],
    ids=["method", "service", "no-method", "root", "long"],
)
def test_unknown_method(client: Client, path: str, row: str) -> None:
    method: Any = client.channel.unary_unary(path)

    error = failure(method.future(b"", timeout=ANSWER_S))

    assert error.code() is UNIMPLEMENTED


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"content-type": "text/plain"}, id="C06-content-type"),
        pytest.param({"grpc-encoding": "zip-of-my-own"}, id="C06-compression"),
        pytest.param({":method": "GET"}, id="C06-method"),
    ],
)
def test_odd_http2_request_is_ended(client: Client, headers: dict[str, str]) -> None:
    host, port = client.target.split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
        connection.sendall(http2_request(f"/{SERVICE}/ServerLive", headers))
        frames = read_until_stream_ends(connection)

    assert frames[-1] in ("reset", "end", "closed")


def test_reader_that_takes_nothing_keeps_nobody_waiting(client: Client, house: Server) -> None:
    answered = house.metric("weir_requests_total", model="affine", status="OK")
    body = request("affine", GOOD).SerializeToString()
    host, port = client.target.split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
        # The window of its streams is 0 bytes: its answer stays in the server.
        connection.sendall(http2_request(f"/{SERVICE}/ModelInfer", {}, body, window_bytes=0))
        house.wait_for_metric(answered + 1, "weir_requests_total", model="affine", status="OK")

        for _ in range(3):
            expect_right_answer(client)


def http2_request(
    path: str, changes: dict[str, str], body: bytes = b"", *, window_bytes: int = 65_535
) -> bytes:
    """A whole HTTP/2 connection of one gRPC request, its headers uncompressed."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "weir",
        "te": "trailers",
        "content-type": "application/grpc",
        **changes,
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    # The message says that it is compressed, where the headers name an encoding.
    message = bytes(["grpc-encoding" in changes]) + len(body).to_bytes(4, "big") + body
    settings, end_headers, data = (
        frame(4, 0, 0, (4).to_bytes(2, "big") + window_bytes.to_bytes(4, "big")),
        frame(1, 4, 1, block),
        frame(0, 1, 1, message),
    )
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + end_headers + data


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def read_until_stream_ends(connection: socket.socket) -> list[str]:
    """What happens to stream 1: `headers`, `data`, and in the end `end`, `reset` or `closed`."""
    seen: list[str] = []
    with connection.makefile("rb") as file:
        while header := file.read(9):
            length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
            stream = int.from_bytes(header[5:9], "big")
            file.read(length)
            if kind == 3 and stream == 1:
                return [*seen, "reset"]
            if kind == 7:
                return [*seen, "closed"]
            if kind in (0, 1) and stream == 1:
                seen.append("data" if kind == 0 else "headers")
                if flags & 1:
                    return [*seen, "end"]
    return [*seen, "closed"]


# Time and cancellation


@pytest.mark.parametrize("row", ["D01"])
def test_deadline_in_the_queue_is_kept_and_the_request_never_run(
    client: Client, house: Server, row: str
) -> None:
    before = house.counts("patient")

    late = answer_at_the_deadline(client, request("patient", GOOD))
    house.wait_for_metric(0, "weir_queue_requests", model="patient")
    # Two more fill a batch: were the first still there, one of them would be left over.
    pair = [client.send(request("patient", GOOD)) for _ in range(2)]

    assert late.status == LATE.value[0]
    for call in pair:
        np.testing.assert_array_equal(output(call), 2 * X + 1)
    house.wait_for_counts("patient", before, OK=2, DEADLINE_EXCEEDED=1, rows=2, batches=1)


def answer_at_the_deadline(client: Client, message: pb.ModelInferRequest) -> Answer:
    """The server's answer to a call that has a second, by a client that waits for it.

    A stock client gives the call up at that moment. If the server heard of it late, because the
    machine is busy, that is a cancellation.
    """
    with Http2Client(client.target, timeout_s=ANSWER_S) as patient:
        payload = message.SerializeToString()
        return patient.unary(f"/{SERVICE}/ModelInfer", payload, grpc_timeout="1S")


@pytest.mark.parametrize("row", ["D01"])
def test_queue_timeout_parameter_is_kept(client: Client, house: Server, row: str) -> None:
    before = house.counts("patient")
    timeout = {"timeout": pb.InferParameter(int64_param=200_000)}

    error = failure(client.send(request("patient", GOOD, parameters=timeout)))
    pair = [client.send(request("patient", GOOD)) for _ in range(2)]

    assert error.code() is LATE
    for call in pair:
        np.testing.assert_array_equal(output(call), 2 * X + 1)
    house.wait_for_counts("patient", before, OK=2, DEADLINE_EXCEEDED=1, rows=2, batches=1)


@pytest.mark.parametrize("row", ["B12"])
@pytest.mark.parametrize("leave", ["deadline", "cancel"])
def test_loop_without_end_is_stopped_when_its_request_has_left(
    client: Client, house: Server, leave: str, row: str
) -> None:
    endless = request("counting", tensor("times", np.array(1 << 62)))

    call = client.send(endless, timeout=1.0 if leave == "deadline" else None)
    if leave == "cancel":
        house.wait_for_metric(1, "weir_running_requests", model="counting")
        call.cancel()
    after = client.infer("counting", tensor("times", np.array(5)))

    assert call.code() in (LATE, grpc.StatusCode.CANCELLED)
    assert after["y"] == 5


@pytest.mark.parametrize("row", ["D02"])
def test_deadline_in_a_run_is_answered_before_the_run_ends(
    client: Client, house: Server, row: str
) -> None:
    before = house.counts("burner")

    late = answer_at_the_deadline(client, burn(FOR_EVER))
    house.wait_for_counts("burner", before, DEADLINE_EXCEEDED=1)
    # The thread is free again: the run of a loop is stopped, so its row is never counted.
    after = client.infer("burner", tensor("iterations", np.array([[1]])))

    assert late.status == LATE.value[0]
    assert after["steps"].tolist() == [[1]]
    house.wait_for_counts("burner", before, OK=1, DEADLINE_EXCEEDED=1, rows=1, batches=1)


@pytest.mark.parametrize("row", ["D03"])
@pytest.mark.parametrize("timeout_s", [0.0, 1e-6], ids=["expired", "microsecond"])
def test_deadline_that_is_over_already(client: Client, timeout_s: float, row: str) -> None:
    call = client.send(request("affine", GOOD), timeout=timeout_s)

    assert call.code() in (LATE, grpc.StatusCode.OK)


@pytest.mark.parametrize("row", ["D03"])
def test_queue_timeout_of_a_microsecond(client: Client, house: Server, row: str) -> None:
    before = house.counts("patient")
    timeout = {"timeout": pb.InferParameter(int64_param=1)}

    error = failure(client.send(request("patient", GOOD, parameters=timeout)))

    assert error.code() is LATE
    house.wait_for_counts("patient", before, DEADLINE_EXCEEDED=1)


@pytest.mark.parametrize("row", ["D04"])
def test_default_deadline_is_the_servers(
    models: Path, transport: str, tmp_path: Path, row: str
) -> None:
    flags = ("--default-deadline-s", "0.5", "--max-queue-delay-s", "86400")
    with (
        running(models, tmp_path / "log", "--transport", transport, *flags) as server,
        Client(server.target) as client,
    ):
        error = failure(client.send(request("affine", GOOD), timeout=None))
        on_stream = list(
            client.stream(iter([request("affine", GOOD).SerializeToString()]), timeout=None)
        )

    assert error.code() is LATE
    assert [bool(answer.error_message) for answer in on_stream] == [True]


@pytest.mark.parametrize("row", ["D05"])
def test_cancelled_in_the_queue_is_gone_and_harms_nobody(
    client: Client, house: Server, row: str
) -> None:
    before = house.counts("patient")
    cancelled = client.send(request("patient", GOOD))
    house.wait_for_metric(1, "weir_queue_requests", model="patient")

    cancelled.cancel()
    house.wait_for_metric(0, "weir_queue_requests", model="patient")
    pair = [client.send(request("patient", GOOD)) for _ in range(2)]

    for call in pair:
        np.testing.assert_array_equal(output(call), 2 * X + 1)
    assert cancelled.code() is grpc.StatusCode.CANCELLED
    house.wait_for_counts("patient", before, OK=2, CANCELLED=1, rows=2, batches=1)


@pytest.mark.parametrize("row", ["D06"])
def test_cancelled_in_a_run_is_dropped_and_the_batch_goes_on(
    client: Client, house: Server, iterations_per_s: int, row: str
) -> None:
    before = house.counts("patient_burner")
    counts = [1, 2 * iterations_per_s, 3]
    calls = [
        client.send(
            request("patient_burner", tensor("iterations", np.array([[count]]))),
            timeout=4 * ANSWER_S,
        )
        for count in counts
    ]
    house.wait_for_metric(3, "weir_running_requests", model="patient_burner")

    calls[0].cancel()
    house.wait_for_metric(2, "weir_running_requests", model="patient_burner")

    for call, count in zip(calls[1:], counts[1:], strict=True):
        np.testing.assert_array_equal(output(call, "echo"), [[count]])
        np.testing.assert_array_equal(output(call, "steps"), [[max(counts)]])
    house.wait_for_counts("patient_burner", before, OK=2, CANCELLED=1, rows=3, batches=1)


STORMING = """
import sys, time
from tests.integration.harness import Client
payload = sys.stdin.buffer.read()
client = Client(sys.argv[1])
calls = [client.send(payload, timeout=None) for _ in range(99)]
print("sent", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("row", ["D07"])
def test_storm_of_cancels_and_killed_clients_leave_no_place_taken(
    client: Client, house: Server, row: str
) -> None:
    """The queue holds eight rows: a place that leaks is missed at once."""
    message = request("patient_full", GOOD)
    # Smaller requests do not count as bytes in flight.
    message.parameters["note"].string_param = "x" * 8192
    for _ in range(50):
        calls = [client.send(message) for _ in range(8)]
        for call in calls:
            call.cancel()
    killed = [
        subprocess.Popen(
            [sys.executable, "-c", STORMING, house.target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in killed:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(message.SerializeToString())
        process.stdin.close()
    for process in killed:
        assert process.stdout is not None and process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()

    for name in ("weir_queue_requests", "weir_running_requests", "weir_inflight_bytes"):
        house.wait_for_metric(0, name, model="patient_full")
    waiting = [client.send(message) for _ in range(8)]
    house.wait_for_metric(8, "weir_queue_requests", model="patient_full")
    for call in waiting:
        call.cancel()
    house.wait_for_metric(0, "weir_queue_requests", model="patient_full")
