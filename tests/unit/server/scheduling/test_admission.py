import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models
from tests.unit.server.conftest import HANG_S, Backend, Clock, FakeCall, parse_pool
from weir.protocol import inference_pb2 as pb
from weir.server.errors import ModelNotReady
from weir.server.protocol import request_decoder
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Model
from weir.server.scheduling.worker_pool import PoolLimits, WorkerPool
from weir.server.telemetry.metrics import Metrics

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
        parse_pool(clock),
        default_deadline_s=60.0,
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


def test_values_that_the_model_refuses_are_invalid(
    models: Path, open_backend: OpenBackend, clock: Clock
) -> None:
    onnx_models.write_plain(models, "gather", onnx_models.gather(8))
    message = pb.ModelInferRequest(model_name="gather")
    message.inputs.add(name="tokens", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append(struct.pack("<q", 8))

    call = admit(admission_of(open_backend(), clock), message)

    assert call.wait_until_finished() is grpc.StatusCode.INVALID_ARGUMENT
    assert call.details == "the model cannot compute with these values"


def test_failure_that_is_not_the_inputs_is_internal_counted_and_logged(
    models: Path, open_backend: OpenBackend, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.write_plain(models, "fails", onnx_models.fails_above(1e6))
    backend = open_backend()
    message = pb.ModelInferRequest(model_name="fails")
    message.inputs.add(name="x", datatype="FP32", shape=[4])
    message.raw_input_contents.append(struct.pack("<4f", 0, 0, 0, 2e6))

    call = admit(admission_of(backend, clock), message)

    assert call.wait_until_finished() is grpc.StatusCode.INTERNAL
    assert call.details.startswith("internal error ")
    assert "Mod" not in call.details
    scheduler = backend.repository.get("fails", "").scheduler
    scheduler.close()
    assert scheduler.join(HANG_S)
    assert count(backend, "INTERNAL", model="fails") == 1
    reason = {"model": "fails", "version": "1", "reason": "internal"}
    assert backend.registry.get_sample_value("weir_request_failures_total", reason) == 1
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert call.details.removeprefix("internal error ") in record.getMessage()


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


class ParsePool:
    """A pool whose jobs run when the test says so."""

    def __init__(self, clock: Clock, limits: PoolLimits | None = None) -> None:
        self.deadlines = Deadlines(clock)
        self.pool = WorkerPool(
            1, name="weir-parse", deadlines=self.deadlines, limits=limits, clock=clock
        )

    def run(self) -> None:
        self.pool.start()


LARGE = request_decoder.INLINE_BYTES + 1


def large_request() -> pb.ModelInferRequest:
    message = affine_request(1)
    # Ignored by the server, and enough for a worker.
    message.parameters["comment"].string_param = "x" * LARGE
    return message


@pytest.fixture
def parsing(clock: Clock) -> ParsePool:
    return ParsePool(clock)


def with_pool(backend: Backend, clock: Clock, parsing: ParsePool) -> Admission:
    return Admission(
        backend.repository.get,
        backend.metrics,
        parsing.pool,
        default_deadline_s=60.0,
        clock=clock,
    )


def test_large_message_waits_for_a_worker(
    backend: Backend, clock: Clock, parsing: ParsePool
) -> None:
    call = admit(with_pool(backend, clock, parsing), large_request())

    assert (parsing.pool.waiting(), call.code) == (1, None)
    parsing.run()
    assert floats(answer_of(call)) == (1, 3, 5, 7)


def test_more_large_messages_than_may_wait_are_refused_at_once(
    backend: Backend, clock: Clock
) -> None:
    parsing = ParsePool(clock, PoolLimits(payload_bytes=3 * LARGE))
    admission = with_pool(backend, clock, parsing)
    calls = [admit(admission, large_request()) for _ in range(3)]

    assert [call.code for call in calls] == [None, None, grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert calls[2].details.startswith("weir-parse: 2 requests of ")
    assert count(backend, "RESOURCE_EXHAUSTED", model="", version="") == 1


def test_caller_that_left_frees_its_place_before_the_parser(
    backend: Backend, clock: Clock, parsing: ParsePool
) -> None:
    call = admit(with_pool(backend, clock, parsing), large_request())

    call.close()

    assert parsing.pool.waiting() == 0
    assert count(backend, "CANCELLED", model="", version="") == 1


def test_deadline_passes_before_the_parser(
    backend: Backend, clock: Clock, parsing: ParsePool
) -> None:
    call = admit(with_pool(backend, clock, parsing), large_request(), FakeCall(time_left_s=1.0))
    clock.advance(1.0)

    parsing.pool.expire(clock.now)

    assert call.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert parsing.pool.waiting() == 0


def test_large_message_that_is_none_is_refused(
    backend: Backend, clock: Clock, parsing: ParsePool
) -> None:
    call = FakeCall()
    with_pool(backend, clock, parsing).admit(b"\xff" * LARGE, call, None, call.on_close)

    parsing.run()

    assert call.wait_until_finished() is grpc.StatusCode.INVALID_ARGUMENT


def test_request_of_many_texts_is_no_work_for_the_transport_thread(
    models: Path, open_backend: OpenBackend, clock: Clock, parsing: ParsePool
) -> None:
    """65,000 empty strings are fewer than 256 KiB, and hold a thread for 30 ms and more."""
    texts = 65_000
    onnx_models.write_plain(models, "echo", onnx_models.echo(TensorProto.STRING, ("batch", "n")))
    admission = with_pool(open_backend(), clock, parsing)
    raw = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(4 * texts)])
    raw.inputs.add(name="x", datatype="BYTES", shape=[1, texts])
    typed = pb.ModelInferRequest(model_name="echo")
    typed.inputs.add(name="x", datatype="BYTES", shape=[1, texts])
    typed.inputs[0].contents.bytes_contents.extend([b""] * texts)
    calls = [admit(admission, message) for message in (raw, typed)]

    assert (parsing.pool.waiting(), [call.code for call in calls]) == (2, [None, None])

    parsing.run()
    assert all(len(answer_of(call).raw_output_contents[0]) == 4 * texts for call in calls)


@pytest.mark.parametrize("leaves", [True, False], ids=["version leaves", "version stays"])
def test_refusal_makes_no_numbers_of_a_version_that_left(clock: Clock, *, leaves: bool) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.model("affine", "1")

    def find_model(name: str, version: str) -> Model:
        if leaves:
            metrics.forget(name, "1")
        raise ModelNotReady(f"{name} {version} is loading", (name, "1"))

    admission = Admission(
        find_model, metrics, ParsePool(clock).pool, default_deadline_s=60.0, clock=clock
    )

    call = admit(admission, affine_request())

    assert call.code is grpc.StatusCode.UNAVAILABLE
    counted = {
        (sample.labels["model"], sample.labels["version"])
        for family in registry.collect()
        if family.name == "weir_requests"
        for sample in family.samples
        if sample.value
    }
    assert counted == {("", "") if leaves else ("affine", "1")}
