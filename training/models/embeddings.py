"""Inputs of sequence networks: words, with their letters, or frames become vectors.

Letters: C. dos Santos, B. Zadrozny, "Learning Character-level Representations for Part-of-Speech
Tagging", ICML 2014, section 2.2; X. Ma, E. Hovy, "End-to-end Sequence Labeling via Bi-directional
LSTM-CNNs-CRF", ACL 2016, section 2.1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import ModelError

SMALL = 0.1
"""Standard deviation of fresh embeddings; torch's 1.0 is too large for the following layers."""


class WordInputs(nn.Module):
    """Word vectors: an embedding of each word, optionally with a vector of its letters.

    Takes tokens (B, T) of int64, 0 for padding, and letters (B, T, L) of int64 if it was made with
    `characters`, else None. Returns (B, T, width).

    Args:
        words: number of words, padding (0) included.
        characters: number of letters, padding (0) included; 0: no letters are read.
        spelling_width: of the vector of a word's letters.
        affix_width: of the vector of a word's first and last letters; 0: the word has none.
        dropout: share of the result set to 0 in training.
    """

    def __init__(
        self,
        words: int,
        word_size: int,
        *,
        characters: int = 0,
        character_size: int = 32,
        spelling_width: int = 64,
        affix_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = small_embedding(words, word_size)
        self.spelling, self.affixes, self.width = None, None, word_size
        if characters:
            marked = affix_width > 0
            self.spelling = Spelling(characters, character_size, spelling_width, marked=marked)
            self.width += spelling_width
        if characters and affix_width:
            self.affixes = Affixes(characters, affix_width)
            self.width += affix_width
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, characters: Tensor | None = None) -> Tensor:
        """Vectors (B, T, width) of tokens (B, T) and their letters (B, T, L)."""
        if (characters is None) != (self.spelling is None):
            expected = "none" if self.spelling is None else "some"
            raise ModelError(f"characters: the network expects {expected}, got the opposite")
        vectors = self.embedding(tokens)  # (B, T, word_size)
        if self.spelling is not None:
            read = [self.spelling(characters)]
            if self.affixes is not None:
                read.append(self.affixes(characters))
            vectors = torch.cat([vectors, *read], dim=2)  # (B, T, width)
        dropped: Tensor = self.dropout(vectors)
        return dropped


class FrameInputs(nn.Module):
    """Normalised frames: bytes become float32 inside the graph, so a client sends raw bytes.

    Takes frames (B, T, features) of uint8. Returns (frames / 255 - mean) / std as float32.
    """

    def __init__(self, features: int, mean: float, std: float) -> None:
        super().__init__()
        self.width = features
        self.mean = mean
        self.std = std

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames (B, T, features)."""
        return (frames.to(torch.float32) / 255.0 - self.mean) / self.std


class Spelling(nn.Module):
    """A vector for each word from its letters, so unknown words have one too.

    Takes letters (B, T, L) of int64, 0 beyond a word's end. Returns (B, T, width), 0 for words
    without letters. More padding in L changes no result.

    Deviation: ReLU before the maximum; the papers have none.

    Args:
        marked: whether padding has an embedding that is learned, so that the network knows the
            first and the last letter of a word. Otherwise it is 0.
    """

    def __init__(
        self, characters: int, character_size: int, width: int, *, marked: bool = False
    ) -> None:
        super().__init__()
        self.embedding = small_embedding(characters, character_size, padding=not marked)
        self.convolution = nn.Conv1d(character_size, width, kernel_size=3)

    def forward(self, characters: Tensor) -> Tensor:
        """Vectors (B, T, width) of letters (B, T, L)."""
        rows, steps, _ = characters.shape
        letters = characters.flatten(0, 1)  # (B·T, L)
        if torch.onnx.is_in_onnx_export():
            return self.exported(letters).reshape(rows, steps, -1)  # (B, T, width)
        is_padding = (letters == 0)[:, None, :]  # (B·T, 1, L)
        surrounded = functional.pad(letters, (1, 1))  # (B·T, L + 2)
        embedded = self.embedding(surrounded).transpose(1, 2)  # (B·T, E, L + 2)
        seen = functional.relu(self.convolution(embedded))  # (B·T, width, L)
        # No value is below 0, so masked places never win, and a word without letters gets 0.
        spelled = seen.masked_fill(is_padding, 0.0).amax(dim=2)  # (B·T, width)
        return spelled.reshape(rows, steps, -1)  # (B, T, width)

    def exported(self, letters: Tensor) -> Tensor:
        """The vectors (N, width) of letters (N, L), by sums of three table entries each.

        Of a tagger's run, the convolution took 20 % and its mask, which ONNX Runtime broadcasts,
        18 %; the sums take half as long as the convolution.
        """
        before, at, after = self._tables()
        padded = functional.pad(letters, (1, 1))  # (N, L + 2)
        seen = functional.relu(
            functional.embedding(padded[:, :-2], before)
            + functional.embedding(letters, at)
            + functional.embedding(padded[:, 2:], after)
        )  # (N, L, width)
        return seen.amax(dim=1)  # (N, width)

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a letter adds to the place after it, to its own, and to the one before it.

        Each is (characters, width). At its own place, padding subtracts the most that its
        neighbours can add, so that ReLU makes 0 of it. ONNX Runtime computes the tables once, when
        it loads the graph.
        """
        kernels = self.convolution.weight.permute(2, 1, 0)  # (3, E, width)
        before, at, after = torch.matmul(self.embedding.weight, kernels).unbind(0)
        if self.convolution.bias is not None:
            at = at + self.convolution.bias
        is_padding = torch.zeros(len(at), 1)
        is_padding[0] = 1.0
        most = before.abs().amax(dim=0) + at[0].abs() + after.abs().amax(dim=0)  # (width,)
        # The sum is rounded, so it may be above the bound.
        return before, at - is_padding * (1.01 * most), after


class Affixes(nn.Module):
    """A vector for each word from its first and last letters, as a sum of table entries.

    Each letter has an entry for each place, and so has a missing letter of a shorter word. Takes
    letters (B, T, L) of int64, 0 beyond a word's end. Returns (B, T, width). More padding in L
    changes no result.
    """

    FIRST, LAST = 3, 4
    """Letters from the beginning and from the end of a word."""

    def __init__(self, characters: int, width: int) -> None:
        super().__init__()
        places = self.FIRST + self.LAST
        self.embedding = small_embedding(places * characters, width, padding=False)
        self.register_buffer("offsets", torch.arange(places) * characters, persistent=False)
        self.offsets: Tensor

    def forward(self, characters: Tensor) -> Tensor:
        """Vectors (B, T, width) of letters (B, T, L)."""
        rows, steps, _ = characters.shape
        letters = characters.flatten(0, 1)  # (B·T, L)
        lengths = letters.sign().sum(dim=1, keepdim=True)  # (B·T, 1)
        padded = functional.pad(letters, (self.LAST, self.FIRST))
        # Padding in front moves the last letters of a word to its length and the places after it.
        last = padded.gather(1, lengths + torch.arange(self.LAST, device=letters.device))
        first = padded[:, self.LAST : self.LAST + self.FIRST]
        entries = torch.cat([first, last], dim=1) + self.offsets  # (B·T, places)
        summed = functional.relu(self.embedding(entries).sum(dim=1))  # (B·T, width)
        return summed.reshape(rows, steps, -1)  # (B, T, width)


def small_embedding(entries: int, size: int, *, padding: bool = True) -> nn.Embedding:
    """An embedding with small initial values; entry 0, if it is for padding, is always 0."""
    embedding = nn.Embedding(entries, size, padding_idx=0 if padding else None)
    nn.init.normal_(embedding.weight, std=SMALL)
    if padding:
        nn.init.zeros_(embedding.weight[0].detach())
    return embedding
