"""`ClassifyText`: each text gets its classes and its unknown tokens."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.helpers import text_models
from tests.unit.server.conftest import HANG_S, Backend, Clock
from tests.unit.server.task_server import TaskServer
from weir.protocol import tasks_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def server(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> Iterator[TaskServer]:
    text_models.write_tagger(models)
    text_models.write_classifier(models)
    server = TaskServer(open_backend(), clock, "ClassifyText", "classifier")
    yield server
    server.pool.close()
    assert server.pool.join(HANG_S)


def of_texts(*texts: str, **fields: Any) -> pb.ClassifyTextRequest:
    given = [pb.Text(text=text) for text in texts]
    return pb.ClassifyTextRequest(**{"model_name": "classifier", "texts": given, **fields})


def test_texts_of_any_length_are_classified_in_their_order(server: TaskServer) -> None:
    message = of_texts("the cat the dog", "sat", id="seven", top_k=2)
    message.texts.add(tokens=pb.Tokens(tokens=["cat", "Cat"]))

    answer = server.ask(message, pb.ClassifyTextResponse)

    assert (answer.model_name, answer.model_version, answer.id) == ("classifier", "1", "seven")
    assert [
        [(each.label, each.index, each.probability) for each in result.classes]
        for result in answer.results
    ] == [
        [("article", 0, 0.5), ("animal", 1, 0.25)],
        [("deed", 2, 1.0), ("article", 0, 0.0)],
        [("animal", 1, 0.5), ("article", 0, 0.0)],
    ]
    assert [list(result.unknown) for result in answer.results] == [["dog"], [], ["Cat"]]


def test_all_classes_are_sent_by_default(server: TaskServer) -> None:
    (result,) = server.ask(of_texts("cat"), pb.ClassifyTextResponse).results

    assert [each.label for each in result.classes] == ["animal", "article", "deed"]


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (of_texts(), "texts: expected 1 or more, got 0"),
        (of_texts("a b c d e f g"), "texts[0]: expected at most 6 tokens, got 7"),
        (of_texts("cat", ""), "texts[1]: expected a text with tokens, got none"),
        (
            of_texts("cat", model_name="tagger"),
            "model 'tagger': expected the task sequence-classification, got tagging",
        ),
        (b"\x22\x01\xff\x0a\x0aclassifier", "the message is no valid ClassifyTextRequest"),
    ],
    ids=["none", "long", "empty", "task", "message"],
)
def test_wrong_request_is_refused(
    message: pb.ClassifyTextRequest | bytes, details: str, server: TaskServer
) -> None:
    assert server.refuse(message) == (INVALID, details)
