import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from tests.unit.server.conftest import HANG_S, Backend, Clock, FakeCall
from weir.protocol import inference_pb2 as pb
from weir.server.scheduling.admission import Admission

OpenBackend = Callable[..., Backend]
# Long enough for a queue to be looked at: nothing is cut before the test closes it.
PATIENT = {"max_queue_delay_s": 86_400.0}


def affine_request(rows: int = 1, request_id: str = "", **fields: object) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(id=request_id, **{"model_name": "affine", **fields})  # type: ignore[arg-type]
    message.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    message.raw_input_contents.append(np.arange(4 * rows, dtype="<f4").tobytes())
    return message


def admission_of(backend: Backend, clock: Clock) -> Admission:
    return Admission(
        backend.repository.get,
        backend.metrics,
        default_deadline_s=60.0,
        max_waiting_bytes=1 << 20,
        clock=clock,
    )


def admit(
    admission: Admission, message: pb.ModelInferRequest, call: FakeCall | None = None
) -> FakeCall:
    call = call or FakeCall()
    admission.admit(message.SerializeToString(), call, call.time_left_s(), call.on_close)
    return call


def answer_of(call: FakeCall) -> pb.ModelInferResponse:
    assert call.wait_until_finished() is grpc.StatusCode.OK, call.details
    assert call.message is not None
    return pb.ModelInferResponse.FromString(call.message)


def floats(answer: pb.ModelInferResponse, index: int = 0) -> Sequence[float]:
    raw = answer.raw_output_contents[index]
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def count(backend: Backend, status: str, model: str = "affine", version: str = "1") -> float:
    labels = {"model": model, "version": version, "status": status}
    return backend.registry.get_sample_value("weir_requests_total", labels) or 0


@pytest.fixture
def backend(publish: Callable[..., Path], open_backend: OpenBackend) -> Backend:
    publish(labels="a\nb\nc\nd\n")
    return open_backend()


@pytest.fixture
def admission(backend: Backend, clock: Clock) -> Admission:
    return admission_of(backend, clock)


def test_request_is_answered_by_its_model(admission: Admission) -> None:
    answer = answer_of(admit(admission, affine_request(rows=2, request_id="seven")))

    assert (answer.model_name, answer.model_version, answer.id) == ("affine", "1", "seven")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
        ("y", "FP32", [2, 4])
    ]
    assert floats(answer) == tuple(2.0 * x + 1 for x in range(8))


def test_answered_request_is_counted(backend: Backend, admission: Admission) -> None:
    admit(admission, affine_request()).wait_until_finished()

    assert backend.repository.close(HANG_S)
    assert count(backend, "OK") == 1


REFUSED = {
    "A21 empty": (pb.ModelInferRequest(), "INVALID_ARGUMENT"),
    "A01 datatype": (
        pb.ModelInferRequest(
            model_name="affine",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, 4])],
        ),
        "INVALID_ARGUMENT",
    ),
    "A03 missing input": (pb.ModelInferRequest(model_name="affine"), "INVALID_ARGUMENT"),
    "A09 too many rows": (affine_request(rows=33), "INVALID_ARGUMENT"),
    "A18 id": (affine_request(request_id="a\nb"), "INVALID_ARGUMENT"),
    "A19 version": (affine_request(model_version="-1"), "INVALID_ARGUMENT"),
    "A19 unknown version": (affine_request(model_version="2"), "NOT_FOUND"),
    "A19 unknown model": (affine_request(model_name="other"), "NOT_FOUND"),
    "A20 path": (affine_request(model_name="../affine"), "NOT_FOUND"),
    "A22 sequence": (
        affine_request(parameters={"sequence_id": pb.InferParameter(int64_param=1)}),
        "UNIMPLEMENTED",
    ),
}


@pytest.mark.parametrize(("message", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_request_is_refused_at_once_and_counted(
    message: pb.ModelInferRequest, status: str, backend: Backend, admission: Admission
) -> None:
    call = admit(admission, message)

    assert call.code is grpc.StatusCode[status]
    assert call.details
    is_found = message.model_name == "affine" and not message.model_version and message.id == ""
    labels = ("affine", "1") if is_found else ("", "")
    assert count(backend, status, *labels) == 1


def test_bytes_that_are_no_request_are_refused(admission: Admission) -> None:
    call = FakeCall()

    admission.admit(b"\xff\xff", call, None, call.on_close)

    assert call.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        pytest.param([("sum", 0)], [("sum", "FP32")], id="one"),
        pytest.param(
            [("product", 0), ("sum", 0)], [("product", "FP32"), ("sum", "FP32")], id="turned"
        ),
        pytest.param(
            [("sum", 2), ("product", 0)], [("sum", "BYTES"), ("product", "FP32")], id="top"
        ),
        pytest.param([], [("sum", "FP32"), ("product", "FP32")], id="all"),
    ],
)
def test_wanted_outputs_are_sent_in_their_order(
    outputs: list[tuple[str, int]],
    expected: list[tuple[str, str]],
    models: Path,
    open_backend: OpenBackend,
    clock: Clock,
) -> None:
    onnx_models.write_plain(models, "arithmetic", onnx_models.arithmetic())
    message = pb.ModelInferRequest(model_name="arithmetic")
    for name in "ab":
        message.inputs.add(name=name, datatype="FP32", shape=[1, 3])
        message.raw_input_contents.append(struct.pack("<3f", 1, 3, 2))
    for name, classes in outputs:
        wanted = message.outputs.add(name=name)
        if classes:
            wanted.parameters["classification"].int64_param = classes

    answer = answer_of(admit(admission_of(open_backend(), clock), message))

    assert [(each.name, each.datatype) for each in answer.outputs] == expected
    if expected[0] == ("sum", "BYTES"):
        texts = [b"6.000000:1", b"4.000000:2"]
        assert answer.raw_output_contents[0] == b"".join(
            struct.pack("<I", len(text)) + text for text in texts
        )


def test_classes_carry_the_bundles_labels(admission: Admission) -> None:
    message = affine_request()
    message.outputs.add(name="y").parameters["classification"].int64_param = 1

    answer = answer_of(admit(admission, message))

    assert list(answer.outputs[0].shape) == [1, 1]
    assert answer.raw_output_contents[0] == struct.pack("<I", 12) + b"7.000000:3:d"


@pytest.mark.parametrize("name", ["z", ""], ids=["unknown", "no name"])
def test_unknown_output_is_refused(name: str, admission: Admission) -> None:
    message = affine_request()
    message.outputs.add(name=name)

    call = admit(admission, message)

    assert call.code is grpc.StatusCode.INVALID_ARGUMENT


def test_classes_of_strings_are_refused(
    models: Path, open_backend: OpenBackend, clock: Clock
) -> None:
    graph = onnx_models.echo(TensorProto.STRING, ("batch", 1))
    onnx_models.write_plain(models, "strings", graph)
    message = pb.ModelInferRequest(model_name="strings")
    message.inputs.add(name="x", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(
        b"a"
    )
    message.outputs.add(name="y").parameters["classification"].int64_param = 1

    call = admit(admission_of(open_backend(), clock), message)

    assert call.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "classification needs axes of numbers" in call.details


def test_full_queue_is_refused_with_pushback(
    publish: Callable[..., Path], open_backend: OpenBackend, clock: Clock
) -> None:
    publish()
    backend = open_backend(**PATIENT)
    admission = admission_of(backend, clock)
    waiting = [admit(admission, affine_request(rows=4)) for _ in range(2)]

    refused = admit(admission, affine_request())

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.trailers) == {"grpc-retry-pushback-ms": "100"}
    assert backend.repository.close(HANG_S)
    assert [call.wait_until_finished() for call in waiting] == [grpc.StatusCode.OK] * 2
    assert (count(backend, "OK"), count(backend, "RESOURCE_EXHAUSTED")) == (2, 1)


def test_caller_that_leaves_frees_its_place(
    publish: Callable[..., Path], open_backend: OpenBackend, clock: Clock
) -> None:
    publish()
    backend = open_backend(**PATIENT)
    admission = admission_of(backend, clock)
    leaver = admit(admission, affine_request(rows=8))

    leaver.close()

    stays = admit(admission, affine_request(rows=8))
    assert count(backend, "CANCELLED") == 1
    assert backend.repository.close(HANG_S)
    assert stays.code is grpc.StatusCode.OK
    assert backend.metrics.model("affine", "1").rows == 8


@pytest.mark.parametrize(
    ("time_left_s", "timeout_us", "expected"),
    [
        pytest.param(None, None, 60.0, id="the server's own"),
        pytest.param(5.0, None, 5.0, id="the caller's"),
        pytest.param(90.0, None, 90.0, id="the caller's, longer"),
        pytest.param(5.0, 2_000_000, 2.0, id="timeout shortens"),
        pytest.param(5.0, 9_000_000, 5.0, id="timeout does not lengthen"),
        pytest.param(None, 2_000_000, 2.0, id="timeout alone"),
        pytest.param(None, 90_000_000, 60.0, id="timeout not beyond the server's"),
    ],
)
def test_deadline_is_the_earliest_of_all(  # noqa: PLR0917 - half of them are fixtures
    time_left_s: float | None,
    timeout_us: int | None,
    expected: float,
    publish: Callable[..., Path],
    open_backend: OpenBackend,
    clock: Clock,
) -> None:
    publish()
    backend = open_backend(**PATIENT)
    message = affine_request()
    if timeout_us is not None:
        message.parameters["timeout"].int64_param = timeout_us

    call = admit(admission_of(backend, clock), message, FakeCall(time_left_s=time_left_s))

    scheduler = backend.repository.get("affine", "").scheduler
    assert scheduler.expire(clock.now) == pytest.approx(clock.now + expected)
    assert scheduler.expire(clock.now + expected) == float("inf")
    assert call.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert count(backend, "DEADLINE_EXCEEDED") == 1


def test_deadline_that_passed_already_is_never_run(backend: Backend, admission: Admission) -> None:
    call = admit(admission, affine_request(), FakeCall(time_left_s=-1.0))

    assert call.wait_until_finished() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert backend.metrics.model("affine", "1").batches == 0


def test_draining_server_takes_nothing_new(admission: Admission) -> None:
    admission.drain()

    call = admit(admission, affine_request())

    assert (call.code, call.details) == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")


def test_answer_over_the_limit_is_refused(
    models: Path, open_backend: OpenBackend, clock: Clock
) -> None:
    """The limit of the fixture is 1 MiB."""
    onnx_models.write_plain(models, "sizer", onnx_models.sizer())
    message = pb.ModelInferRequest(model_name="sizer")
    message.inputs.add(name="size", datatype="INT64", shape=[1])
    message.raw_input_contents.append(struct.pack("<q", 1 << 19))

    call = admit(admission_of(open_backend(), clock), message)

    assert call.wait_until_finished() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # 64 bytes of the limit are kept for what a stream puts around an answer.
    assert "the limit is 1048512" in call.details


def test_values_the_model_refuses_are_told_as_such(
    models: Path, open_backend: OpenBackend, clock: Clock
) -> None:
    onnx_models.write_plain(models, "gather", onnx_models.gather(8))
    message = pb.ModelInferRequest(model_name="gather")
    message.inputs.add(name="tokens", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append(struct.pack("<q", 8))

    call = admit(admission_of(open_backend(), clock), message)

    assert call.wait_until_finished() is grpc.StatusCode.INVALID_ARGUMENT
    assert call.details == "the model cannot compute with these values"


BF16_NAN, BF16_INFINITY, BF16_LARGEST = 0x7FC0, 0xFF80, 0x7F7F


@pytest.mark.parametrize(
    ("datatype", "name", "raw", "is_finite"),
    [
        pytest.param(TensorProto.FLOAT, "FP32", struct.pack("<f", 1e38), True, id="FP32"),
        pytest.param(TensorProto.FLOAT, "FP32", struct.pack("<f", float("nan")), False, id="NaN"),
        pytest.param(
            TensorProto.FLOAT16, "FP16", struct.pack("<e", -np.inf), False, id="FP16 -inf"
        ),
        pytest.param(TensorProto.DOUBLE, "FP64", struct.pack("<d", np.inf), False, id="FP64 inf"),
        pytest.param(
            TensorProto.BFLOAT16, "BF16", struct.pack("<H", BF16_NAN), False, id="BF16 NaN"
        ),
        pytest.param(
            TensorProto.BFLOAT16, "BF16", struct.pack("<H", BF16_INFINITY), False, id="BF16 -inf"
        ),
        pytest.param(
            TensorProto.BFLOAT16, "BF16", struct.pack("<H", BF16_LARGEST), True, id="BF16"
        ),
        pytest.param(TensorProto.UINT16, "UINT16", struct.pack("<H", BF16_NAN), True, id="UINT16"),
    ],
)
@pytest.mark.parametrize("policy", ["pass", "reject"])
def test_non_finite_numbers_are_the_operators_choice(  # noqa: PLR0917 - half are fixtures
    policy: str,
    datatype: int,
    name: str,
    raw: bytes,
    is_finite: bool,  # noqa: FBT001
    models: Path,
    open_backend: OpenBackend,
    clock: Clock,
) -> None:
    onnx_models.write_plain(models, "echo", onnx_models.echo(datatype, ("batch", 1)))
    message = pb.ModelInferRequest(model_name="echo", raw_input_contents=[raw])
    message.inputs.add(name="x", datatype=name, shape=[1, 1])

    call = admit(admission_of(open_backend(non_finite=policy), clock), message)

    if is_finite or policy == "pass":
        assert answer_of(call).raw_output_contents[0] == raw
    else:
        assert call.code is grpc.StatusCode.INVALID_ARGUMENT
        assert call.details == "input 'x': expected finite numbers, got NaN or infinity"
