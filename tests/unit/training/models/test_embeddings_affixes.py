"""Vectors of a word's first and last letters against plain Python loops."""

import numpy as np
import torch

from weir.training.models.embeddings import Affixes, WordInputs

WORDS: tuple[list[int], ...] = ([3, 1, 4, 1, 5, 9, 2, 6], [7], [2, 8], [5, 3, 5, 8], [])
ALPHABET, WIDTH, LETTERS = 10, 7, 8


def made() -> Affixes:
    torch.manual_seed(0)
    return Affixes(ALPHABET, WIDTH)


def padded(letters: int = LETTERS) -> torch.Tensor:
    return torch.tensor([[word + [0] * (letters - len(word)) for word in WORDS]])


def test_agrees_with_a_python_loop() -> None:
    network = made()
    table = network.embedding.weight.detach().numpy().reshape(7, ALPHABET, WIDTH)

    vectors = network(padded())

    assert vectors.shape == (1, len(WORDS), WIDTH)
    for vector, word in zip(vectors[0], WORDS, strict=True):
        first = [*word, 0, 0, 0][:3]
        last = [0, 0, 0, 0, *word][-4:]
        total = sum(table[place, letter] for place, letter in enumerate(first + last))
        np.testing.assert_allclose(vector.detach().numpy(), np.maximum(total, 0.0), atol=1e-6)


def test_wider_padding_changes_nothing() -> None:
    network = made()

    assert torch.equal(network(padded()), network(padded(LETTERS + 5)))


def test_letters_in_the_middle_are_not_read() -> None:
    network = made()
    changed = padded()
    changed[0, 0, 3] = 8

    assert torch.equal(network(padded()), network(changed))
    changed[0, 0, 4] = 8
    assert not torch.equal(network(padded())[0, 0], network(changed)[0, 0])


def test_vectors_of_a_word_are_its_own_its_letters_and_its_affixes() -> None:
    torch.manual_seed(0)
    inputs = WordInputs(9, 4, characters=ALPHABET, spelling_width=3, affix_width=5)
    tokens = torch.arange(len(WORDS))[None]
    assert inputs.spelling is not None and inputs.affixes is not None

    vectors = inputs(tokens, padded())

    assert vectors.shape == (1, len(WORDS), inputs.width) == (1, len(WORDS), 12)
    torch.testing.assert_close(vectors[..., :4], inputs.embedding(tokens))
    torch.testing.assert_close(vectors[..., 4:7], inputs.spelling(padded()))
    torch.testing.assert_close(vectors[..., 7:], inputs.affixes(padded()))
    assert inputs.spelling.embedding.weight[0].any()


def test_offsets_are_no_part_of_the_weights() -> None:
    assert list(made().state_dict()) == ["embedding.weight"]
