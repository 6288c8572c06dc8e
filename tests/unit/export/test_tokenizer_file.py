"""A tokenizer.json gives examples and specification of a classifier's export."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import bert
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.export import ExportSpec, TokenizerFile, publish
from weir.export.errors import ExportError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bert.write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def test_examples_are_the_rows_that_the_server_will_make(path: Path) -> None:
    oracle = bert.trained_tokenizer()
    oracle.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106 - no password

    examples = TokenizerFile.read(path).encode(bert.TEXTS)

    expected = oracle.encode_batch(bert.TEXTS)
    assert tuple(examples) == INPUTS
    assert examples["input_ids"].tolist() == [each.ids for each in expected]
    assert examples["attention_mask"].tolist() == [each.attention_mask for each in expected]
    assert examples["token_type_ids"].tolist() == [each.type_ids for each in expected]


def test_specification_names_every_input(path: Path) -> None:
    file = TokenizerFile.read(path, maximum=64)

    spec = ExportSpec.for_texts(
        file, architecture="bert", outputs=("logits",), labels={"logits": bert.LABELS}
    )

    assert spec.task == "sequence-classification" and spec.tokenizer == path.read_bytes()
    assert spec.padded_axes == {
        "time": PaddedAxis(maximum=64, mask="attention_mask", padding=dict.fromkeys(INPUTS, 0))
    }
    greatest = bert.trained_tokenizer().get_vocab_size() - 1
    assert spec.ranges == {"input_ids": ValueRange(maximum=greatest)}


def test_network_of_ids_alone_has_no_other_input(path: Path) -> None:
    file = TokenizerFile.read(path, tokens="ids", attention_mask=None, token_type_ids=None)

    assert list(file.encode(["who"])) == list(file.axes) == ["ids"]
    assert file.padded_axes["time"].mask is None


def test_maximum_is_the_files_truncation_or_512(tmp_path: Path, path: Path) -> None:
    cut = bert.trained_tokenizer()
    cut.enable_truncation(7)
    cut.save(str(tmp_path / "cut.json"))

    assert TokenizerFile.read(path).maximum == 512
    file = TokenizerFile.read(tmp_path / "cut.json")
    assert file.maximum == 7
    assert file.encode([bert.TEXTS[1]])["input_ids"].shape == (1, 7)


@pytest.mark.parametrize(
    ("maximum", "entries"), [(bert.MAXIMUM + 1, 0), (bert.MAXIMUM, -1)], ids=["positions", "ids"]
)
def test_network_takes_the_longest_text_and_each_id(
    tmp_path: Path, path: Path, maximum: int, entries: int
) -> None:
    file = TokenizerFile.read(path, maximum=maximum)
    network = bert.Bert(file.greatest + 1 + entries)
    spec = ExportSpec.for_texts(
        file, architecture="bert", outputs=("logits",), labels={"logits": bert.LABELS}
    )

    with pytest.raises(ExportError, match=f"rows of .*{maximum}.* and ids to .*{file.greatest}"):
        publish(network, file.encode(bert.TEXTS[2:3]), spec, to=tmp_path / "models", name="bert")


@pytest.mark.parametrize(
    ("settings", "texts", "message"),
    [
        ({"maximum": 4}, [bert.TEXTS[0]], "expected texts of 1 to 4 tokens, got"),
        ({}, [], r"expected texts of 1 to 512 tokens, got \[\]"),
    ],
    ids=["too long", "none"],
)
def test_texts_of_no_or_too_many_tokens_are_refused(
    path: Path, settings: dict[str, Any], texts: list[str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        TokenizerFile.read(path, **settings).encode(texts)


def test_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(ExportError, match="nothing: No such file"):
        TokenizerFile.read(tmp_path / "nothing")
    with pytest.raises(ExportError, match=r"expected a tokenizer.json, got"):
        TokenizerFile.read(tmp_path / "tokenizer.json")
