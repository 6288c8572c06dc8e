"""A BERT classifier with a tokenizer.json: texts in, classes out, batched by length."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
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


def test_tensors_of_unequal_length_may_leave_the_mask_out(served: Served) -> None:
    ids = served.tokenizer.encode(bert.TEXTS[2]).ids
    inputs = {"input_ids": np.array([ids]), "token_type_ids": np.zeros((1, len(ids)), np.int64)}

    with weir.Client(served.server.target, timeout_s=ANSWER_S) as client:
        logits = client.infer("bert", inputs)["logits"][0]

    powers = np.exp(logits - logits.max())
    assert (powers / powers.sum()).tolist() == pytest.approx(served.scores(bert.TEXTS[2]), abs=1e-5)


def test_real_tokens_are_counted_without_padding(served: Served) -> None:
    names = ("weir_input_tokens_total", "weir_padded_tokens_total")
    before = [served.server.metric(name, model="bert") for name in names]
    lengths = [len(served.tokenizer.encode(text).ids) for text in bert.TEXTS]

    with weir.Client(served.server.target, timeout_s=ANSWER_S) as client:
        client.classify_text("bert", bert.TEXTS)
    served.server.settle()

    real, padded = (
        served.server.metric(name, model="bert") - count
        for name, count in zip(names, before, strict=True)
    )
    assert real == sum(lengths) and padded >= len(lengths) * max(lengths)


def test_unknown_pieces_are_named_as_the_text_spells_them(served: Served) -> None:
    with weir.Client(served.server.target, timeout_s=ANSWER_S) as client:
        text, words = client.classify_text("bert", ["Who wrote 名 ?", ["Who", "名 名"]])

    assert text.unknown == ["名"]
    assert words.unknown == ["名", "名"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("live " * 63, r"texts\[1\]: expected at most 64 tokens, got 65"),
        (" ", r"texts\[1\]: expected a text with tokens, got none"),
        ("live " * 1000, r"texts\[1\]: expected a text of at most 4096 characters, got 5000"),
    ],
    ids=["tokens", "blank", "characters"],
)
def test_text_that_is_no_row_is_refused(served: Served, text: str, message: str) -> None:
    with (
        weir.Client(served.server.target, timeout_s=ANSWER_S) as client,
        pytest.raises(weir.InvalidArgument, match=message),
    ):
        client.classify_text("bert", ["Why ?", text])


def test_mask_of_padding_alone_is_refused(served: Served) -> None:
    row = np.array([[2, 3]])
    inputs = {"input_ids": row, "token_type_ids": 0 * row, "attention_mask": 0 * row}

    with (
        weir.Client(served.server.target, timeout_s=ANSWER_S) as client,
        pytest.raises(weir.InvalidArgument, match="expected a 1 in each row of the mask"),
    ):
        client.infer("bert", inputs)
