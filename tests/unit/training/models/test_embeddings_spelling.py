"""Character-level word vectors against one word at a time, and padding."""

import pytest
import torch
from torch.nn import functional

from weir.training.models.embeddings import Spelling

WORDS: tuple[list[int], ...] = ([3, 1, 4], [1], [5, 9, 2, 6, 5], [])
LETTERS = 6
marked_or_not = pytest.mark.parametrize("marked", [False, True], ids=["plain", "marked"])


def made(*, marked: bool = False) -> Spelling:
    torch.manual_seed(0)
    return Spelling(10, 4, 7, marked=marked)


def padded(letters: int) -> torch.Tensor:
    return torch.tensor([[word + [0] * (letters - len(word)) for word in WORDS]])


def test_agrees_with_one_word_at_a_time() -> None:
    network = made()

    vectors = network(padded(LETTERS))

    assert vectors.shape == (1, len(WORDS), 7)
    for vector, word in zip(vectors[0], WORDS[:3], strict=False):
        embedded = network.embedding(torch.tensor(word)).T[None]
        convolution = network.convolution
        scores = functional.conv1d(embedded, convolution.weight, convolution.bias, padding=1)
        torch.testing.assert_close(vector, functional.relu(scores).amax(dim=2)[0])


def test_marks_surround_one_word_at_a_time() -> None:
    network = made(marked=True)
    vectors = network(padded(LETTERS))

    for vector, word in zip(vectors[0], WORDS[:3], strict=False):
        letters = network.embedding(torch.tensor([0, *word, 0])).T[None]
        convolution = network.convolution
        scores = functional.conv1d(letters, convolution.weight, convolution.bias)
        torch.testing.assert_close(vector, functional.relu(scores).amax(dim=2)[0])


@marked_or_not
def test_wider_padding_changes_nothing(*, marked: bool) -> None:
    network = made(marked=marked)

    torch.testing.assert_close(network(padded(LETTERS)), network(padded(LETTERS + 5)))


@marked_or_not
def test_word_without_letters_is_0(*, marked: bool) -> None:
    network = made(marked=marked)
    with torch.no_grad():
        for weight in network.convolution.parameters():
            weight.fill_(1.0)

    assert not network(padded(LETTERS))[0, 3].any()


def test_padding_stays_0_in_training() -> None:
    network = made()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)

    network(padded(LETTERS)).sum().backward()
    optimizer.step()

    assert not network.embedding.weight[0].any()
    assert network.embedding.weight[1].any()


@marked_or_not
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_exported_form_gives_the_same_vectors(
    scale: float, monkeypatch: pytest.MonkeyPatch, *, marked: bool
) -> None:
    spelling = made(marked=marked)
    with torch.no_grad():
        spelling.embedding.weight.mul_(scale)
        spelling.convolution.bias.fill_(scale)  # type: ignore[union-attr]  # it has one
    letters = torch.randint(0, 10, (6, 5, 8), generator=torch.Generator().manual_seed(0))
    letters[0] = letters[:, 0] = letters[..., 6:] = 0
    expected = spelling(letters)

    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)

    torch.testing.assert_close(spelling(letters), expected, rtol=1e-5, atol=1e-6 * scale)
    assert spelling(letters)[0].count_nonzero() == 0
