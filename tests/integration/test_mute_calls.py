"""Calls whose message never comes: they end by themselves, and keep no other call out."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.helpers import onnx_models
from tests.helpers.http2_client import HEADERS, Http2Client, framed
from tests.integration.harness import (
    ANSWER_S,
    GOOD,
    SERVICE,
    Client,
    Server,
    expect_right_answer,
    failure,
    request,
    running,
)
from weir.protocol import inference_pb2, models_pb2, tasks_pb2

MESSAGE = request("affine", GOOD)
INFER = f"/{SERVICE}/ModelInfer"
STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"
GENERATE = "/weir.v1.Tasks/Generate"
HEALTH = "/grpc.health.v1.Health/Check"
OK, INVALID, LATE, EXHAUSTED, UNIMPLEMENTED = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)
# Bidirectional streams, whose first message has no time limit.
RESTING = {STREAM_INFER, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}
MOST = 40
SOME = 5
CUT_OFF = framed(MESSAGE.SerializeToString())[:-1]
LOGGED = ("--access-log-sample-rate", "1")


def methods() -> Iterator[str]:
    """Every method of the descriptor pool, as a path."""
    for file in (inference_pb2, models_pb2, tasks_pb2, health_pb2, reflection_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("affine")
    onnx_models.write_plain(root, "affine", onnx_models.affine(), version=1)
    return root


def wait_for_answer(client: Client) -> None:
    """Send good requests until one is answered."""
    end_s = time.monotonic() + ANSWER_S
    while client.send(MESSAGE).code() is not grpc.StatusCode.OK:
        assert time.monotonic() < end_s, "the mute calls keep their places"
        time.sleep(0.05)


def ends(client: Http2Client, count: int) -> Iterator[dict[str, str]]:
    """The trailers of the next calls of a connection that end without a message."""
    while count:
        frame = client.next_frame()
        if frame.kind == HEADERS:
            yield client.decoded(frame)
            count -= 1


@pytest.mark.parametrize("logged", [(), LOGGED], ids=["no log", "access log"])
@pytest.mark.parametrize("row", ["H05"])
def test_call_without_a_message_ends_at_the_default_deadline(
    affine: Path, transport: str, tmp_path: Path, row: str, logged: tuple[str, ...]
) -> None:
    flags = ("--transport", transport, "--default-deadline-s", "0.5", *logged)
    with (
        running(affine, tmp_path / "log", *flags) as server,
        ExitStack() as stack,
        Client(server.target) as client,
    ):
        calls = {}
        for name in methods():
            if name in RESTING:
                continue
            mute = stack.enter_context(Http2Client(server.target, timeout_s=ANSWER_S))
            calls[name] = mute, mute.call(name)
        answers = {name: mute.answer(stream) for name, (mute, stream) in calls.items()}
        expect_right_answer(client)

    offered = {name: each for name, each in answers.items() if each.status != UNIMPLEMENTED}
    assert {INFER, GENERATE} < offered.keys()
    assert {each.status for each in offered.values()} == {LATE}
    messages = {each.headers["grpc-message"] for each in offered.values()}
    assert messages == {"expected one message, none came within 0.5 s"}


@pytest.mark.parametrize("row", ["H05"])
def test_stream_of_requests_rests_before_its_first_one(
    affine: Path, transport: str, tmp_path: Path, row: str
) -> None:
    flags = ("--transport", transport, "--default-deadline-s", "0.5")
    with (
        running(affine, tmp_path / "log", *flags) as server,
        Http2Client(server.target, timeout_s=ANSWER_S) as resting,
        Http2Client(server.target, timeout_s=ANSWER_S) as mute,
    ):
        stream = resting.call(STREAM_INFER)
        # The stream opened first, and its time does not run.
        assert mute.answer(mute.call(INFER)).status == LATE
        resting.send_data(stream, framed(MESSAGE.SerializeToString()), ends=True)
        answer = resting.answer(stream)

    assert answer.status == OK


@pytest.mark.parametrize("row", ["H05"])
def test_mute_call_with_a_deadline_of_ten_days_ends_at_the_maximum(
    affine: Path, transport: str, tmp_path: Path, row: str
) -> None:
    limits = ("--default-deadline-s", "0.5", "--max-deadline-s", "1", "--max-queue-delay-s", "99")
    with (
        running(affine, tmp_path / "log", "--transport", transport, *limits) as server,
        Http2Client(server.target, timeout_s=ANSWER_S) as mute,
        Client(server.target) as client,
    ):
        answer = mute.answer(mute.call(INFER, grpc_timeout="240H"))
        queued = failure(client.send(MESSAGE, timeout=10 * 86_400))

    assert answer.status == LATE
    assert queued.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("row", ["H05"])
def test_open_calls_of_the_server_are_bounded_and_mute_ones_give_way(
    affine: Path, transport: str, tmp_path: Path, row: str
) -> None:
    flags = ("--transport", transport, "--max-open-calls", str(MOST))
    with (
        running(affine, tmp_path / "log", *flags) as server,
        Http2Client(server.target, timeout_s=ANSWER_S) as mute,
        Client(server.target) as client,
    ):
        for _ in range(2 * MOST):
            mute.call(INFER)

        # Half of them find no place; a refusal says when to try again.
        for trailers in ends(mute, MOST):
            assert trailers["grpc-status"] == str(EXHAUSTED)
            assert trailers["grpc-retry-pushback-ms"]
        # A probe takes the place of the oldest, and so does any call once that has waited a while.
        assert client.health() == "SERVING"
        wait_for_answer(client)
        for _ in range(3):
            expect_right_answer(client)
        (shed,) = ends(mute, 1)
        assert shed["grpc-status"] == str(EXHAUSTED)
        assert shed["grpc-retry-pushback-ms"]


@pytest.mark.parametrize("row", ["H05"])
def test_mute_calls_free_their_places(
    affine: Path, transport: str, tmp_path: Path, row: str
) -> None:
    """On grpc-server each held one of 512 threads for ever."""
    flags = ("--transport", transport, "--default-deadline-s", "2")
    with (
        running(affine, tmp_path / "log", *flags) as server,
        Http2Client(server.target, timeout_s=ANSWER_S) as mute,
        Client(server.target) as client,
    ):
        for _ in range(600):
            mute.call(INFER)

        found = {trailers["grpc-status"] for trailers in ends(mute, 600)}

        assert found <= {str(LATE), str(EXHAUSTED)}
        wait_for_answer(client)
        for _ in range(3):
            expect_right_answer(client)


def handled(server: Server, method: str) -> dict[str, float]:
    """The calls of a method by status, once all of them have ended."""
    name = method.rpartition("/")[2]
    started = server.metric("grpc_server_started_total", grpc_method=name)
    server.wait_for_metric(started, "grpc_server_handled_total", grpc_method=name)
    return {
        labels["grpc_code"]: value
        for (metric, carried), value in server.scrape().items()
        if metric == "grpc_server_handled_total" and value
        if (labels := dict(carried))["grpc_method"] == name
    }


def open_some(server: Server, client: Http2Client, method: str, data: bytes) -> list[int]:
    """Start calls that stay open, and wait until the server knows them."""
    name = method.rpartition("/")[2]
    before = server.metric("grpc_server_started_total", grpc_method=name)
    streams = [client.call(method) for _ in range(SOME)]
    for stream in streams:
        client.send_data(stream, data)
    server.wait_for_metric(before + SOME, "grpc_server_started_total", grpc_method=name)
    return streams


@pytest.mark.parametrize("data", [b"", CUT_OFF], ids=["no message", "half a message"])
@pytest.mark.parametrize("row", ["H05"])
def test_calls_that_end_before_their_message_count_as_their_clients_see_them(
    affine: Path, transport: str, tmp_path: Path, row: str, data: bytes
) -> None:
    with (
        running(affine, tmp_path / "log", "--transport", transport, *LOGGED) as server,
        Client(server.target) as client,
    ):
        for method in (INFER, GENERATE, STREAM_INFER):
            with Http2Client(server.target, timeout_s=ANSWER_S) as late:
                for _ in range(SOME):
                    stream = late.call(method, grpc_timeout="100m")
                    late.send_data(stream, data)
                    assert late.answer(stream).status == LATE
            assert handled(server, method) == {"DeadlineExceeded": SOME}

            with Http2Client(server.target, timeout_s=ANSWER_S) as gone:
                open_some(server, gone, method, data)
            with Http2Client(server.target, timeout_s=ANSWER_S) as resetting:
                for stream in open_some(server, resetting, method, data):
                    resetting.reset(stream)
                ended = {"DeadlineExceeded": SOME, "Cancelled": 2 * SOME}
                assert handled(server, method) == ended

            # The client itself says that no more will come. A stream of requests may have none.
            with Http2Client(server.target, timeout_s=ANSWER_S) as done:
                stream = done.call(method)
                done.send_data(stream, data, ends=True)
                status = done.answer(stream).status
            assert status == (OK if method == STREAM_INFER else INVALID)
            code = "OK" if method == STREAM_INFER else "InvalidArgument"
            assert handled(server, method) == ended | {code: 1}

        client.send(request("affine", GOOD, id="last")).result()
        server.wait_for_log("id=last")
        lines = [line for line in server.log().splitlines() if "method=" in line]

    assert len(lines) == 1
