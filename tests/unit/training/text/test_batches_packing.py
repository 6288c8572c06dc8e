"""Packed texts against plain Python loops."""

from collections import Counter

import pytest
import torch

from weir.training.batching import PackedRows
from weir.training.data.text import TextData
from weir.training.data.vocabulary import PAD, UNKNOWN
from weir.training.optimization import NO_TARGET, UNSEEN
from weir.training.text.batches import Sequences, build_vocabularies, hide_letters, pack
from weir.training.text.recipes import TokenSettings

ROWS = (("The", "cat", "sat"), ("a",), ("The", "caterpillar"), ("a", "a", "the", "cat"))
TAGS = (("D", "N", "V"), ("D",), ("D", "N"), ("D", "D", "D", "?"))
CLASSES = ("D", "N", "V")
SPELLING = TokenSettings(size=4, lower=True, spelling=True, most_letters=5)
chosen = pytest.mark.parametrize("rows", [[0], [1], [3, 0], [2, 1, 2], [0, 1, 2, 3]], ids=str)


def tagged() -> TextData:
    return TextData("tiny", ROWS, TAGS, is_tagged=True, checksum="0")


def packed_with(settings: TokenSettings = SPELLING) -> Sequences:
    return pack(tagged(), CLASSES, build_vocabularies(ROWS, settings), settings)


@chosen
def test_a_batch_of_words_equals_a_python_loop(rows: list[int]) -> None:
    vocabularies, packed = build_vocabularies(ROWS, SPELLING), packed_with()
    steps = max(len(ROWS[row]) for row in rows)
    letters = max(min(len(word), 5) for row in rows for word in ROWS[row])
    tokens = torch.full((len(rows), steps), PAD)
    spelt = torch.full((len(rows), steps, letters), PAD)
    targets = torch.full((len(rows), steps), NO_TARGET)
    for place, row in enumerate(rows):
        for step, (word, tag) in enumerate(zip(ROWS[row], TAGS[row], strict=True)):
            tokens[place, step] = vocabularies["tokens"].encode([word.lower()])[0]
            targets[place, step] = CLASSES.index(tag) if tag in CLASSES else UNSEEN
            for at, letter in enumerate(word[:5]):
                spelt[place, step, at] = vocabularies["characters"].encode([letter])[0]

    batch = packed.take(torch.tensor(rows))

    assert torch.equal(batch.inputs[0], tokens)
    assert batch.inputs[1].tolist() == [len(ROWS[row]) for row in rows]
    assert torch.equal(batch.inputs[2], spelt)
    assert torch.equal(batch.targets, targets)


@chosen
def test_a_batch_of_frames_equals_a_python_loop(rows: list[int]) -> None:
    lengths = [2, 5, 1, 3]
    sequences = [torch.randint(1, 256, (length, 4), dtype=torch.uint8) for length in lengths]
    frame_rows = PackedRows.of(torch.cat(sequences), torch.tensor(lengths))
    packed = Sequences(frame_rows, torch.arange(4) * 10, is_tagged=False)
    frames = torch.zeros(len(rows), max(lengths[row] for row in rows), 4, dtype=torch.uint8)
    for place, row in enumerate(rows):
        frames[place, : lengths[row]] = sequences[row]

    batch = packed.take(torch.tensor(rows))

    assert batch.inputs[0].dtype == torch.uint8 and torch.equal(batch.inputs[0], frames)
    assert batch.inputs[1].tolist() == [lengths[row] for row in rows]
    assert batch.targets.tolist() == [10 * row for row in rows]


def test_hidden_words_are_unknown_and_keep_their_letters() -> None:
    packed = packed_with()
    rows = torch.tensor([0, 1])
    shown = packed.take(rows)

    batch = packed.take(rows, torch.tensor([[True, False, True], [False] * 3]))
    everything = packed.take(rows, torch.ones(3, dtype=torch.bool))

    tokens = shown.inputs[0].clone()
    tokens[0, [0, 2]] = UNKNOWN
    assert torch.equal(batch.inputs[0], tokens)
    assert torch.equal(batch.inputs[2], shown.inputs[2])
    assert everything.inputs[0].tolist() == [[UNKNOWN] * 3, [UNKNOWN, PAD, PAD]]


def test_hidden_letters_are_unknown_and_padding_stays() -> None:
    shown = packed_with().take(torch.arange(4))

    batch = hide_letters(shown, 0.5, torch.Generator().manual_seed(0))

    before, after = shown.inputs[2], batch.inputs[2]
    is_hidden = before != after
    assert 0 < int(is_hidden.sum()) < int((before != PAD).sum())
    assert (after[is_hidden] == UNKNOWN).all() and (before[is_hidden] != PAD).all()
    assert all(map(torch.equal, batch.inputs[:2], shown.inputs[:2]))
    assert torch.equal(batch.targets, shown.targets)


def test_rare_letters_have_no_entry() -> None:
    settings = TokenSettings(size=4, spelling=True, letter_minimum_count=4)

    letters = build_vocabularies(ROWS, settings)["characters"]

    counts = Counter("".join("".join(row) for row in ROWS))
    assert set(letters.entries[4:]) == {each for each, count in counts.items() if count >= 4}
    assert letters.encode(["p"]) == [UNKNOWN]


def test_without_spelling_there_are_no_letters() -> None:
    packed = packed_with(TokenSettings(size=4))

    batch = packed.take(torch.tensor([0, 3]))

    assert packed.forms is not None and packed.forms.letters is None
    assert len(batch.inputs) == 2


def test_vocabularies_hold_the_spelling_that_the_network_reads() -> None:
    cased = build_vocabularies(ROWS, TokenSettings(size=4))
    lowered = build_vocabularies(ROWS, SPELLING)
    frequent = build_vocabularies(ROWS, TokenSettings(size=4, lower=True, minimum_count=3))

    assert set(cased) == {"tokens"} and {"The", "the"} <= set(cased["tokens"].entries)
    assert {"the", "sat"} <= set(lowered["tokens"].entries)
    assert "The" not in lowered["tokens"].entries
    assert set(lowered["characters"].entries[4:]) == set("".join("".join(row) for row in ROWS))
    assert set(frequent["tokens"].entries[4:]) == {"a", "the"}


def test_words_and_labels_of_another_split_that_training_lacks() -> None:
    other = TextData("other", (("The", "zebra"),), (("D", "X"),), is_tagged=True, checksum="0")
    packed = pack(other, CLASSES, build_vocabularies(ROWS, SPELLING), SPELLING)

    batch = packed.take(torch.tensor([0]))

    assert batch.inputs[0][0, 1] == UNKNOWN and batch.inputs[0][0, 0] > UNKNOWN
    assert batch.inputs[2][0, 1, 0] == UNKNOWN  # z
    assert batch.targets.tolist() == [[0, UNSEEN]]
