"""Pictures over the wire: answers, deadlines, cancellation, and a stop."""

import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from tests.helpers import onnx_models
from tests.integration.conftest import RGB, SETTINGS, write_picture_bundle
from tests.integration.harness import (
    ANSWER_S,
    TASKS,
    Client,
    Server,
    failure,
    request,
    running,
    tensor,
)
from weir.protocol import tasks_pb2 as pb

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
NAMES = list(COLOURS)


def png(name: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[name]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def client(house: Server) -> Iterator[Client]:
    with Client(house.target) as client:
        yield client


def labels(call: Any) -> list[str]:
    """The likeliest class of each picture."""
    return [result.classes[0].label for result in call.result().results]


def test_pictures_are_classified_in_their_order(client: Client) -> None:
    call = client.classify("colours", *[png(name) for name in NAMES], id="seven", top_k=2)

    answer = call.result()
    assert labels(call) == NAMES
    assert (answer.model_name, answer.model_version, answer.id) == ("colours", "1", "seven")
    assert [len(result.classes) for result in answer.results] == [2, 2, 2]


def test_raw_pixels_are_answered_too(client: Client) -> None:
    message = pb.ClassifyRequest(model_name="colours")
    message.pictures.add(
        raw=pb.Pixels(height=1, width=2, channels=3, values=bytes(COLOURS["blue"] * 2))
    )

    payload = client.unary("Classify", TASKS)(message.SerializeToString(), timeout=ANSWER_S)

    (result,) = pb.ClassifyResponse.FromString(payload).results
    assert result.classes[0].label == "blue"


def test_both_calls_reach_the_same_model(client: Client) -> None:
    image = np.full((1, 8, 8, 3), COLOURS["green"], np.uint8)

    answer = client.infer("colours", tensor("image", image))
    (result,) = client.classify("colours", png("green")).result().results

    assert answer["probabilities"][0].tolist() == [0.0, 1.0, 0.0]
    assert [(each.index, each.probability) for each in result.classes] == [
        (1, 1.0),
        (0, 0.0),
        (2, 0.0),
    ]


def test_requests_of_both_calls_share_a_batch(client: Client, house: Server) -> None:
    before = house.counts("patient_colours")
    image = np.full((1, 8, 8, 3), COLOURS["green"], np.uint8)

    classify = client.classify("patient_colours", png("red"))
    infer = client.send(request("patient_colours", tensor("image", image)))

    assert labels(classify) == ["red"]
    assert infer.result().outputs
    house.wait_for_counts("patient_colours", before, OK=2, rows=2, batches=1)


def test_many_pictures_at_once_get_their_own_answers(client: Client) -> None:
    wanted = [NAMES[n % 3] for n in range(120)]

    calls = [client.classify("colours", png(name, (9 + n, 30))) for n, name in enumerate(wanted)]

    assert [labels(call)[0] for call in calls] == wanted


def test_more_pictures_than_fit_into_a_batch_are_refused(client: Client) -> None:
    error = failure(client.classify("colours", *[png("red")] * 9))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "pictures: expected at most 8 in a request, got 9"


def test_model_without_preprocessing_is_refused(client: Client) -> None:
    error = failure(client.classify("labelled", png("red")))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'labelled' takes no pictures" in (error.details() or "")


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x22\x00" * 2_000_000], ids=["noise", "parts"])
def test_invalid_message_is_refused(client: Client, payload: bytes) -> None:
    error = failure(client.unary("Classify", TASKS).future(payload, timeout=ANSWER_S))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert labels(client.classify("colours", png("red"))) == ["red"]


def test_deadline_holds_in_the_queue(client: Client, house: Server) -> None:
    batches = house.metric("weir_batches_total", model="patient_colours")

    error = failure(client.classify("patient_colours", png("red"), timeout=0.5))
    house.wait_for_metric(0, "weir_queue_requests", model="patient_colours")
    # Two more fill a batch only if the first has left the queue.
    pair = [client.classify("patient_colours", png(name)) for name in ("red", "blue")]

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [labels(call) for call in pair] == [["red"], ["blue"]]
    house.wait_for_metric(batches + 1, "weir_batches_total", model="patient_colours")


def test_request_cancelled_in_the_queue_harms_no_other(client: Client, house: Server) -> None:
    before = house.counts("patient_colours")
    cancelled = client.classify("patient_colours", png("red"))
    house.wait_for_metric(1, "weir_queue_requests", model="patient_colours")

    cancelled.cancel()
    house.wait_for_metric(0, "weir_queue_requests", model="patient_colours")
    pair = [client.classify("patient_colours", png(name)) for name in ("green", "blue")]

    assert [labels(call) for call in pair] == [["green"], ["blue"]]
    house.wait_for_counts("patient_colours", before, OK=2, CANCELLED=1, rows=2, batches=1)


def test_preprocessing_is_timed_by_model(client: Client, house: Server) -> None:
    before = house.metric("weir_preprocess_seconds_count", model="colours")

    labels(client.classify("colours", png("red"), png("blue")))

    assert house.metric("weir_preprocess_seconds_count", model="colours") == before + 2
    assert house.metric("weir_preprocess_queue_requests") == 0


def test_stop_finishes_requests_in_preprocessing(tmp_path: Path, transport: str) -> None:
    models, settings = tmp_path / "models", tmp_path / "weir.toml"
    for name in ("colours", "patient_colours"):
        write_picture_bundle(models, name, onnx_models.colours(), "probabilities", RGB)
    settings.write_text(SETTINGS)
    flags = ("--transport", transport, "--config", str(settings), "--preprocessing-threads", "1")
    with running(models, tmp_path / "log", *flags) as server, Client(server.target) as client:
        # One waits in the model's queue, one occupies the pool's only thread, one waits for it.
        queued = client.classify("patient_colours", png("red"))
        server.wait_for_metric(1, "weir_queue_requests", model="patient_colours")
        large = png("blue", (8000, 4000))
        slow = [client.classify("colours", large) for _ in range(2)]
        server.wait_for_metric(1, "weir_preprocess_queue_requests")

        server.process.send_signal(signal.SIGTERM)
        code = server.ended()

    assert labels(queued) == ["red"]
    assert [labels(call) for call in slow] == [["blue"]] * 2
    assert code == 0
    assert "stopped drained=True" in server.log()
