"""Subwords as sentencepiece learns them."""

import pytest

from weir.training.data.segment import Segmenter, learn_side
from weir.training.data.subwords import Kind, cut, entries_of, joined, open_subwords, train_subwords
from weir.training.data.vocabulary import SPECIAL, UNKNOWN, Vocabulary
from weir.training.errors import DataError

TEXTS = ["lower lowest low", "newer newest new", "wider widest wide <s> <unk>"] * 20
KINDS: tuple[Kind, ...] = ("bpe", "unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_ids_of_the_model(kind: Kind) -> None:
    processor = open_subwords(train_subwords(TEXTS, 40, kind))
    vocabulary = entries_of(processor)

    assert vocabulary.entries[:4] == SPECIAL and len(vocabulary) <= 40
    assert Vocabulary.parse(vocabulary.lines(), "x") == vocabulary
    for text in ("lower newest", "wide low"):
        assert vocabulary.encode(cut(processor, text)) == processor.encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_bytes(kind: Kind) -> None:
    assert train_subwords(TEXTS, 40, kind) == train_subwords(iter(TEXTS), 40, kind)


def test_frequent_words_are_whole_and_rare_ones_are_not() -> None:
    processor = open_subwords(train_subwords(TEXTS, 60, "bpe"))

    assert cut(processor, "lowest") == ["\u2581lowest"]
    assert len(cut(processor, "lowidest")) > 1


def test_characters_never_seen_are_unknown_and_come_back() -> None:
    side = learn_side(TEXTS, "subwords", maximum=40)

    assert UNKNOWN in side.encode("low 漢字")
    pieces = side.segmenter.split("low 漢字")
    assert "漢字" in pieces and joined(pieces) == "low 漢字"


def test_a_text_that_spells_a_special_entry_gets_no_special_id() -> None:
    side = learn_side(TEXTS, "subwords", maximum=40)

    assert not {0, 2, 3} & set(side.encode("<s> </s> <pad> low"))
    assert side.segmenter.join(side.segmenter.split("<s>low</s>")) == "<s>low</s>"


def test_small_sets_give_fewer_entries() -> None:
    side = learn_side(["a b"], "subwords", maximum=1000)

    assert 4 < len(side.vocabulary) < 12


@pytest.mark.parametrize(("texts", "size"), [([], 100), (TEXTS, 5)], ids=["no text", "too small"])
def test_what_cannot_be_learnt_is_named(texts: list[str], size: int) -> None:
    with pytest.raises(DataError, match=f"subwords: no bpe of {size} entries from these texts"):
        train_subwords(texts, size, "bpe")


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(DataError, match="subwords: expected a sentencepiece model, found"):
        Segmenter("subwords", model=b"nothing").split("a")
