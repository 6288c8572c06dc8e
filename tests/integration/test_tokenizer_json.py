"""A BERT classifier with a tokenizer.json: texts in, classes out, batched by length."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tokenizers import Tokenizer
from torch import nn

import weir
from tests.helpers import bert
from tests.integration.harness import ANSWER_S, Server, running
from weir.export import ExportSpec, TokenizerFile, publish

# The answer to a text waits for three rows: those of other texts are then in its batch.
ROWS = 3
SETTINGS = f"""
[models.patient]
max_batch_rows = {ROWS}
max_queue_delay_s = 86400
"""


@dataclass(frozen=True)
class Served:
    """A server of the classifier, and the classifier itself."""

    server: Server
    tokenizer: Tokenizer
    network: nn.Module

    def scores(self, text: str) -> list[float]:
        """The class probabilities that the text must have, by class."""
        return bert.alone(self.network, self.tokenizer, text)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("bert")
    tokenizer = bert.write_tokenizer(place / "tokenizer.json")
    network = bert.random_bert(tokenizer)
    file = TokenizerFile.read(place / "tokenizer.json", maximum=bert.MAXIMUM)
    spec = ExportSpec.for_texts(
        file, architecture="bert", outputs=("logits",), labels={"logits": bert.LABELS}
    )
    publish(network, file.encode(bert.TEXTS), spec, to=place / "models", name="bert")
    shutil.copytree(place / "models" / "bert", place / "models" / "patient")
    (place / "weir.toml").write_text(SETTINGS)
    flags = ("--config", str(place / "weir.toml"))
    with running(place / "models", place / "server.log", *flags) as server:
        yield Served(server, tokenizer, network)


def by_class(answer: weir.ClassifiedText) -> list[float]:
    return [each.score for each in sorted(answer.classes, key=lambda each: each.index)]


def test_texts_are_classified_as_by_tokenizer_and_network_themselves(served: Served) -> None:
    with weir.Client(served.server.target, timeout_s=ANSWER_S) as client:
        answers = client.classify_text("bert", bert.TEXTS)

    for text, answer in zip(bert.TEXTS, answers, strict=True):
        assert by_class(answer) == pytest.approx(served.scores(text), abs=1e-5)
        assert {each.label for each in answer.classes} == set(bert.LABELS)


def test_texts_of_unequal_length_share_a_batch(served: Served) -> None:
    # Near enough in length that the scheduler puts them together.
    texts = [" ".join(["live"] * count) for count in (9, 8, 10)]
    lengths = [len(served.tokenizer.encode(text).ids) for text in texts]
    assert lengths == [11, 10, 12]
    before = served.server.counts("patient")

    async def main() -> list[list[weir.ClassifiedText]]:
        async with weir.AsyncClient(served.server.target, timeout_s=ANSWER_S) as client:
            return await asyncio.gather(*(client.classify_text("patient", [t]) for t in texts))

    answers = asyncio.run(main())

    for text, (answer,) in zip(texts, answers, strict=True):
        assert by_class(answer) == pytest.approx(served.scores(text), abs=1e-5)
    served.server.wait_for_counts("patient", before, OK=ROWS, rows=ROWS, batches=1)
