import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from tests.helpers import onnx_models
from tests.unit.server.conftest import COLOURS, HANG_S, Backend, Clock, FakeCall
from tests.unit.server.task_server import TaskServer
from weir.bundle.contract import Preprocessing
from weir.protocol import tasks_pb2 as pb
from weir.server.scheduling.worker_pool import Job

INVALID = grpc.StatusCode.INVALID_ARGUMENT
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PATIENT = {"max_queue_delay_s": 86_400.0}


def png(colour: tuple[int, ...], size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def encoded(*files: bytes, **fields: Any) -> pb.ClassifyRequest:
    pictures = [pb.Picture(encoded=file) for file in files]
    return pb.ClassifyRequest(**{"model_name": "colours", "pictures": pictures, **fields})


class Server(TaskServer):
    """`Classify` on a repository of a model of pictures and a model of numbers."""

    def name(self, message: pb.ClassifyRequest) -> pb.ClassifyResponse:
        return self.ask(message, pb.ClassifyResponse)


class Gate:
    """Blocks the preprocessing of every picture until the test opens it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = threading.Semaphore(0)
        self._is_open = threading.Event()
        real = Image.Image.resize
        gate = self

        def resize(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
            gate.began.release()
            assert gate._is_open.wait(HANG_S)
            return real(image, *arguments, **options)

        monkeypatch.setattr(Image.Image, "resize", resize)

    def wait(self) -> None:
        assert self.began.acquire(timeout=HANG_S)

    def open(self) -> None:
        self._is_open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


@pytest.fixture
def open_server(
    publish: Callable[..., Path], open_backend: Callable[..., Backend], clock: Clock
) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def open_server(
        *,
        graph: bytes | None = None,
        preprocessing: Preprocessing = COLOURS,
        labels: str | None = "red\ngreen\nblue\n",
        **settings: Any,
    ) -> Server:
        publish("affine")
        graph = graph or onnx_models.colours()
        publish(
            "colours",
            graph=graph,
            golden=onnx_models.recorded(graph),
            labels=labels,
            preprocessing=preprocessing,
        )
        server = Server(open_backend(**settings), clock, "Classify", "colours")
        servers.append(server)
        return server

    yield open_server
    for server in servers:
        server.pool.close()
        assert server.pool.join(HANG_S)


@pytest.fixture
def server(open_server: Callable[..., Server]) -> Server:
    return open_server()


def test_pictures_are_classified_in_their_order(server: Server) -> None:
    answer = server.name(encoded(png(BLUE), png(RED), id="seven", top_k=1))

    assert (answer.model_name, answer.model_version, answer.id) == ("colours", "1", "seven")
    assert [
        [(each.label, each.index, each.probability) for each in result.classes]
        for result in answer.results
    ] == [[("blue", 2, 1.0)], [("red", 0, 1.0)]]


@pytest.mark.parametrize(("top_k", "expected"), [(0, 3), (1, 1), (2, 2), (3, 3), (2**32 - 1, 3)])
def test_top_k_bounds_the_classes(server: Server, top_k: int, expected: int) -> None:
    (result,) = server.name(encoded(png((255, 85, 0)), top_k=top_k)).results

    probabilities = [each.probability for each in result.classes]
    assert [each.label for each in result.classes] == ["red", "green", "blue"][:expected]
    assert probabilities == pytest.approx([0.75, 0.25, 0.0][:expected])


def test_five_classes_are_the_default(
    open_server: Callable[..., Server],
) -> None:
    preprocessing = COLOURS.model_copy(update={"output": "values"})
    server = open_server(graph=onnx_models.pixels(), preprocessing=preprocessing, labels=None)

    (result,) = server.name(encoded(png(RED))).results

    assert [(each.label, each.index) for each in result.classes] == [
        ("", index) for index in (0, 3, 6, 9, 12)
    ]


def test_model_without_labels_gives_indices(open_server: Callable[..., Server]) -> None:
    (result,) = open_server(labels=None).name(encoded(png(GREEN), top_k=1)).results

    assert [(each.label, each.index) for each in result.classes] == [("", 1)]


def test_raw_pixels_and_files_go_together(server: Server) -> None:
    message = encoded(png(RED), top_k=1)
    message.pictures.add(raw=pb.Pixels(height=2, width=1, channels=3, values=bytes(GREEN * 2)))

    answer = server.name(message)

    assert [result.classes[0].label for result in answer.results] == ["red", "green"]


RAW = pb.Pixels(height=2, width=1, channels=3, values=bytes(5))
REFUSED = {
    "no pictures": (encoded(), "pictures: expected 1 or more, got 0"),
    "too many pictures": (
        encoded(*[png(RED)] * 33),
        "pictures: expected at most 32 in a request, got 33",
    ),
    "second is broken": (
        encoded(png(RED), b"GIF89a"),
        "pictures[1]: expected JPEG or PNG, got GIF",
    ),
    "neither encoded nor raw": (
        pb.ClassifyRequest(model_name="colours", pictures=[pb.Picture()]),
        "pictures[0]: expected encoded or raw, got neither",
    ),
    "raw": (
        pb.ClassifyRequest(model_name="colours", pictures=[pb.Picture(raw=RAW)]),
        "pictures[0]: expected 6 values for 2 x 1 x 3, got 5",
    ),
    "id": (encoded(png(RED), id="a\nb"), "id: expected printable characters, got others"),
    "damaged message": (
        encoded(png(RED)).SerializeToString() + b"\x22\x01\xff",
        "the message is no valid ClassifyRequest",
    ),
    "model of numbers": (
        encoded(png(RED), model_name="affine"),
        ("model 'affine' takes no pictures: its bundle has no preprocessing"),
    ),
}


@pytest.mark.parametrize(("message", "details"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_request_is_refused_and_counted(
    message: pb.ClassifyRequest | bytes, details: str, server: Server
) -> None:
    assert server.refuse(message) == (INVALID, details)

    model = "affine" if "affine" in details else "colours"
    assert server.count("INVALID_ARGUMENT", model) == 1
    assert server.sample("weir_rows_total") == 0


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(encoded(model_name="other"), grpc.StatusCode.NOT_FOUND, id="model"),
        pytest.param(encoded(model_version="2"), grpc.StatusCode.NOT_FOUND, id="version"),
        pytest.param(encoded(model_version="1x"), INVALID, id="no version"),
        pytest.param(encoded(model_name=""), INVALID, id="no name"),
        pytest.param(b"\xff", INVALID, id="no message"),
        pytest.param(b"\x0a\x01\xff", INVALID, id="no UTF-8"),
    ],
)
def test_request_without_a_model_is_counted_without_one(
    message: pb.ClassifyRequest | bytes, code: grpc.StatusCode, server: Server
) -> None:
    assert server.refuse(message)[0] is code

    assert server.count(code.name, "") == 1


def test_too_many_classes_in_a_request_are_refused(
    open_server: Callable[..., Server],
) -> None:
    size = {"height": 64, "width": 64, "output": "values"}
    preprocessing = COLOURS.model_copy(update=size)
    server = open_server(graph=onnx_models.pixels(64, 64), preprocessing=preprocessing, labels=None)

    assert server.refuse(encoded(png(RED), top_k=2**32 - 1)) == (
        INVALID,
        "classification: expected at most 10000 classes in all, got 12288",
    )


def test_answered_request_is_counted_and_its_preprocessing_timed(server: Server) -> None:
    server.name(encoded(png(RED), png(GREEN)))

    assert server.backend.repository.close(HANG_S)
    assert server.count("OK") == 1
    assert server.sample("weir_rows_total") == 2
    assert server.sample("weir_preprocess_seconds_count") == 2


def test_pictures_of_several_requests_share_a_batch(open_server: Callable[..., Server]) -> None:
    server = open_server(**PATIENT, max_batch_rows=4)

    calls = [server.send(encoded(png(colour), top_k=1)) for colour in (RED, GREEN, BLUE, RED)]

    answers = []
    for call in calls:
        assert call.wait_until_finished() is grpc.StatusCode.OK, call.details
        answers.append(pb.ClassifyResponse.FromString(call.message or b""))
    assert [answer.results[0].classes[0].label for answer in answers] == [
        "red",
        "green",
        "blue",
        "red",
    ]
    assert server.backend.repository.close(HANG_S)
    assert server.sample("weir_batches_total") == 1


def test_no_picture_is_read_on_the_transports_thread(server: Server, gate: Gate) -> None:
    call = server.send(encoded(png(RED)))

    gate.wait()
    assert call.code is None
    gate.open()
    assert call.wait_until_finished() is grpc.StatusCode.OK


def test_request_cancelled_during_preprocessing_is_dropped(server: Server, gate: Gate) -> None:
    leaver = server.send(encoded(*[png(RED)] * 3))
    gate.wait()

    leaver.close()
    gate.open()

    assert server.name(encoded(png(GREEN), top_k=1)).results[0].classes[0].label == "green"
    assert server.count("CANCELLED") == 1
    assert server.backend.repository.close(HANG_S)
    # The second and third picture of the cancelled request were not read.
    assert server.sample("weir_preprocess_seconds_count") == 2
    assert server.sample("weir_rows_total") == 1


def test_request_cancelled_in_the_models_queue_frees_its_place(
    open_server: Callable[..., Server],
) -> None:
    server = open_server(**PATIENT)
    leaver = server.send(encoded(png(RED)))
    model = server.backend.repository.get("colours", "")
    server.pool.close()
    assert server.pool.join(HANG_S)
    assert model.scheduler.load().waiting_rows == 1

    leaver.close()

    assert model.scheduler.load().waiting_rows == 0
    assert server.count("CANCELLED") == 1


def test_job_that_is_done_at_once_can_still_be_cancelled(
    open_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = open_server(**PATIENT)

    def submit(job: Job) -> None:
        job.work()
        job.proceed()

    monkeypatch.setattr(server.pool, "submit", submit)
    leaver = server.send(encoded(png(RED)))

    leaver.close()

    assert server.backend.repository.get("colours", "").scheduler.load().waiting_rows == 0
    assert server.count("CANCELLED") == 1


def test_request_cancelled_between_the_queues_is_dropped(
    open_server: Callable[..., Server], gate: Gate
) -> None:
    server = open_server(**PATIENT)
    call = server.send(encoded(png(RED)))
    gate.wait()
    # The pool is not notified, as if the client left just after the pool handed the call over.
    call.cancelled = True
    gate.open()
    server.pool.close()
    assert server.pool.join(HANG_S)

    assert server.backend.repository.get("colours", "").scheduler.load().waiting_rows == 0
    assert server.count("CANCELLED") == 1


@pytest.mark.parametrize(
    ("time_left_s", "expected_s"), [(None, 60.0), (5.0, 5.0), (90.0, 90.0)], ids=str
)
def test_deadline_holds_during_preprocessing(
    server: Server, gate: Gate, clock: Clock, time_left_s: float | None, expected_s: float
) -> None:
    call = server.send(encoded(png(RED)), FakeCall(time_left_s=time_left_s))
    gate.wait()

    assert server.pool.expire(clock.now) == clock.now + expected_s
    server.pool.expire(clock.now + expected_s)

    assert call.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.count("DEADLINE_EXCEEDED") == 1


def test_deadline_holds_in_the_models_queue(
    open_server: Callable[..., Server], clock: Clock
) -> None:
    server = open_server(**PATIENT)
    call = server.send(encoded(png(RED)), FakeCall(time_left_s=5.0))
    server.pool.close()
    assert server.pool.join(HANG_S)
    scheduler = server.backend.repository.get("colours", "").scheduler

    assert scheduler.expire(clock.now) == clock.now + 5.0
    scheduler.expire(clock.now + 5.0)

    assert call.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_full_queue_of_the_model_is_refused_with_pushback(
    open_server: Callable[..., Server],
) -> None:
    server = open_server(**PATIENT, max_queue_rows=1)
    waiting = server.send(encoded(png(RED)))

    refused = server.send(encoded(png(RED)))

    assert refused.wait_until_finished() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.trailers) == {"grpc-retry-pushback-ms": "100"}
    assert server.backend.repository.close(HANG_S)
    assert waiting.wait_until_finished() is grpc.StatusCode.OK


def test_draining_server_refuses_new_calls_and_finishes_the_others(
    server: Server, gate: Gate
) -> None:
    accepted = server.send(encoded(png(RED)))
    gate.wait()

    server.admission.drain()
    refused = server.send(encoded(png(RED)))
    gate.open()

    assert (refused.code, refused.details) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping",
    )
    assert accepted.wait_until_finished() is grpc.StatusCode.OK


def test_queue_time_of_the_pool_is_not_the_models(server: Server, gate: Gate, clock: Clock) -> None:
    call = server.send(encoded(png(RED)))
    gate.wait()
    clock.advance(10.0)
    gate.open()
    call.wait_until_finished()

    assert server.backend.repository.close(HANG_S)
    assert server.sample("weir_queue_seconds_sum") == 0.0
    assert server.sample("weir_request_seconds_sum") == 10.0
    assert server.sample("weir_preprocess_seconds_sum") == 10.0


def test_no_other_module_of_the_server_imports_pillow() -> None:
    importers = [
        path.name
        for path in (Path(__file__).parents[4] / "server").rglob("*.py")
        if "from PIL" in path.read_text("utf-8") or "import PIL" in path.read_text("utf-8")
    ]

    assert importers == ["images.py"]


def test_probabilities_are_those_of_the_models_own_call(server: Server) -> None:
    """The same rows, submitted to the scheduler by the test."""
    generator = np.random.default_rng(3)
    picture = generator.integers(0, 256, (8, 8, 3), np.uint8)
    message = pb.ClassifyRequest(model_name="colours")
    message.pictures.add(raw=pb.Pixels(height=8, width=8, channels=3, values=picture.tobytes()))

    (result,) = server.name(message).results

    sums = picture.sum(axis=(0, 1), dtype=np.float64)
    found = {each.index: each.probability for each in result.classes}
    assert found == pytest.approx(dict(enumerate(sums / sums.sum())), rel=1e-6)
