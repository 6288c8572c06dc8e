"""`Tag`: each token gets its tag, and unknown tokens are marked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.helpers import text_models
from tests.unit.server.conftest import HANG_S, Backend, Clock
from tests.unit.server.task_server import TaskServer
from weir.bundle.sequences import Tokenisation
from weir.protocol import tasks_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def server(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> Iterator[TaskServer]:
    text_models.write_tagger(models)
    text_models.write_classifier(models)
    server = TaskServer(open_backend(), clock, "Tag", "tagger")
    yield server
    server.pool.close()
    assert server.pool.join(HANG_S)


def of_texts(*texts: str, **fields: Any) -> pb.TagRequest:
    given = [pb.Text(text=text) for text in texts]
    return pb.TagRequest(**{"model_name": "tagger", "texts": given, **fields})


def of_tokens(*tokens: str) -> pb.TagRequest:
    return of_texts(texts=[pb.Text(tokens=pb.Tokens(tokens=tokens))])


def tagged(answer: pb.TagResponse) -> list[list[tuple[str, str, bool]]]:
    return [
        [(token.text, token.tag, token.is_unknown) for token in result.tokens]
        for result in answer.results
    ]


def tag(word: int, letters: str) -> str:
    ids = {letter: index for index, letter in enumerate(text_models.LETTERS)}
    return text_models.TAGS[(word + sum(ids.get(letter, 1) for letter in letters)) % 3]


def test_every_token_is_tagged_as_it_is_spelt(server: TaskServer) -> None:
    answer = server.ask(of_texts("The cat sat", "cat!", id="seven"), pb.TagResponse)

    assert (answer.model_name, answer.model_version, answer.id) == ("tagger", "1", "seven")
    assert tagged(answer) == [
        [
            ("The", tag(4, "The"), False),
            ("cat", tag(5, "cat"), False),
            ("sat", tag(6, "sat"), False),
        ],
        [("cat", tag(5, "cat"), False), ("!", tag(1, "!"), True)],
    ]
    probabilities = [token.probability for result in answer.results for token in result.tokens]
    assert probabilities == pytest.approx([text_models.CERTAIN] * 5, rel=1e-6)


def test_tokens_that_the_client_split_stay_as_they_are(server: TaskServer) -> None:
    answer = server.ask(of_tokens("the", "cat sat", "<s>"), pb.TagResponse)

    assert [(text, is_unknown) for text, _, is_unknown in tagged(answer)[0]] == [
        ("the", False),
        ("cat sat", True),
        ("<s>", True),
    ]


def test_tag_of_a_model_without_labels_is_its_number(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> None:
    text_models.write_tagger(models, labels={})
    server = TaskServer(open_backend(), clock, "Tag", "tagger")

    ((token,),) = tagged(server.ask(of_tokens("the"), pb.TagResponse))

    assert token[1] == str(text_models.TAGS.index(tag(4, "the")))
    server.pool.close()


REFUSED = {
    "no texts": (of_texts(), "texts: expected 1 or more, got 0"),
    "too many": (of_texts(*["cat"] * 5), "texts: expected at most 4 in a request, got 5"),
    "blank": (of_texts("cat", " \n"), "texts[1]: expected a text with tokens, got none"),
    "neither": (of_texts(texts=[pb.Text()]), "texts[0]: expected text or tokens, got neither"),
    "no tokens": (of_tokens(), "texts[0]: expected a text with tokens, got none"),
    "empty token": (of_tokens("a", ""), "texts[0]: tokens[1]: expected characters, got none"),
    "long": (of_texts("a b c d e f g"), "texts[0]: expected at most 6 tokens, got 7"),
    "parts": (
        of_tokens(*["a"] * 20_000),
        "too many tokens in the request, expected at most 16384",
    ),
    "id": (of_texts("cat", id="a\nb"), "id: expected printable characters, got others"),
    "message": (
        of_texts("cat").SerializeToString() + b"\x22\x01\xff",
        "the message is no valid TagRequest",
    ),
    "another task": (
        of_texts("cat", model_name="classifier"),
        "model 'classifier': expected the task tagging, got sequence-classification",
    ),
}


@pytest.mark.parametrize(("message", "details"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_request_is_refused_and_counted(
    message: pb.TagRequest | bytes, details: str, server: TaskServer
) -> None:
    assert server.refuse(message) == (INVALID, details)

    assert (
        server.count("INVALID_ARGUMENT", details.split("'")[1] if "model" in details else None) == 1
    )
    assert server.sample("weir_rows_total") == 0


def test_request_of_too_many_tokens_is_refused(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> None:
    axes = {
        "time": {"maximum": 4000, "lengths": "lengths", "padding": {"tokens": 0, "characters": 0}},
        "letters": {"maximum": 6, "padding": {"characters": 0}},
    }
    text_models.write_tagger(models, padded_axes=axes)
    server = TaskServer(open_backend(), clock, "Tag", "tagger")

    assert server.refuse(of_texts(*["a " * 3000] * 4)) == (
        INVALID,
        "texts: expected at most 10000 tokens in a request, got 12000",
    )
    server.pool.close()


def test_plain_model_and_model_without_tokenisation_are_refused(
    models: Path, open_backend: Callable[..., Backend], clock: Clock, publish: Callable[..., Path]
) -> None:
    text_models.write_tagger(models, tokenisation=None)
    publish("affine")
    server = TaskServer(open_backend(), clock, "Tag", "tagger")

    assert server.refuse(of_texts("cat"))[1] == (
        "model 'tagger' takes no texts: its bundle has no tokenisation"
    )
    assert server.refuse(of_texts("cat", model_name="affine"))[1] == (
        "model 'affine': expected the task tagging, got other"
    )
    server.pool.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"value_ranges": {"tokens": {"maximum": 5}, "characters": {"maximum": 9}}},
            "tokenisation: expected input 'tokens' to take an id for each of 7 entries",
        ),
        (
            {
                "tokenisation": Tokenisation(rule="words", unknown=1),
                "vocabularies": {"tokens": "tokens.txt"},
            },
            "tokenisation: missing inputs: 'characters'",
        ),
    ],
    ids=["range", "graph"],
)
def test_bundle_whose_texts_do_not_fit_its_graph_is_not_served(
    changes: dict[str, Any],
    reason: str,
    models: Path,
    open_backend: Callable[..., Backend],
) -> None:
    text_models.write_tagger(models, **changes)

    entry = open_backend().repository.registry.entry("tagger", "")

    assert entry.model is None and reason in entry.reason
