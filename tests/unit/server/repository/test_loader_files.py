"""Files of a bundle before it is verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import pairs
from tests.unit.server.conftest import Backend
from weir.bundle.sequences import Tokenisation
from weir.server.repository import loader
from weir.server.scheduling.served_model import ServedModel
from weir.training.data.vocabulary import SPECIAL

SOURCE, TARGET = [*SPECIAL, *"abcdef"], [*SPECIAL, *"ABCD"]
CONTRACT = pairs.CONTRACT.model_copy(
    update={
        "vocabularies": {"tokens": "tokens.txt", "previous": "previous.txt"},
        "tokenisation": Tokenisation(rule="letters", lower=True, unknown=1),
        "decoding": pairs.CONTRACT.decoding
        and pairs.CONTRACT.decoding.model_copy(update={"detokenisation": "spaces"}),
    }
)


def texts_of(source: list[str], target: list[str]) -> dict[str, bytes]:
    return {"tokens.txt": "\n".join(source).encode(), "previous.txt": "\n".join(target).encode()}


def test_both_graphs_of_a_pair_know_how_its_texts_are_read_and_written(
    publish_pair: Callable[..., Path],
) -> None:
    directory = publish_pair(contract=CONTRACT, **texts_of(SOURCE, TARGET))

    encoder, decoder = loader.read(directory)

    assert encoder.tokenizer is not None and encoder.detokenizer is not None
    assert encoder.tokenizer is decoder.tokenizer and encoder.detokenizer is decoder.detokenizer
    assert list(encoder.tokenizer.tokenize("Fax").ids) == [9, 4, 1]
    assert encoder.detokenizer.text([4, 7]) == "A D"


def test_pair_that_takes_ids_only_has_neither_words(publish_pair: Callable[..., Path]) -> None:
    encoder, _ = loader.read(publish_pair())

    assert encoder.tokenizer is None
    assert encoder.detokenizer is not None and encoder.detokenizer.token(4) == "4"


def test_bundle_of_one_graph_writes_nothing(publish: Callable[..., Path]) -> None:
    (files,) = loader.read(publish())

    assert files.tokenizer is None and files.detokenizer is None


@pytest.mark.parametrize(
    ("files", "changes", "reason"),
    [
        (texts_of([*SOURCE, "g"], TARGET), {}, "an id for each of 11 entries"),
        (texts_of(SOURCE, TARGET[:-1]), {}, "vocabularies: previous: expected 8 entries, got 7"),
        (
            texts_of(SOURCE, TARGET),
            {"tokenisation": Tokenisation(rule="letters", unknown=1, tokens="previous")},
            "tokenisation: expected one padded axis of 'previous', got []",
        ),
    ],
    ids=["source", "target", "input"],
)
def test_pair_whose_texts_do_not_fit_is_not_served(
    files: dict[str, bytes],
    changes: dict[str, Any],
    reason: str,
    publish_pair: Callable[..., Path],
    open_backend: Callable[..., Backend],
) -> None:
    publish_pair(contract=CONTRACT.model_copy(update=changes), **files)

    entry = open_backend().repository.registry.entry("pair.encoder", "")

    assert entry.model is None and reason in entry.reason


def test_pair_whose_texts_fit_is_served(
    publish_pair: Callable[..., Path], open_backend: Callable[..., Backend]
) -> None:
    publish_pair(contract=CONTRACT, **texts_of(SOURCE, TARGET))

    backend = open_backend()

    encoder = backend.repository.get("pair.encoder", "")
    assert isinstance(encoder, ServedModel)
    assert encoder.tokenizer is None, "the whole pair's, not its"
