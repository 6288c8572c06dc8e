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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = small_embedding(words, word_size)
        self.spelling = Spelling(characters, character_size, spelling_width) if characters else None
        self.width = word_size + (spelling_width if characters else 0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, characters: Tensor | None = None) -> Tensor:
        """Vectors (B, T, width) of tokens (B, T) and their letters (B, T, L)."""
        if (characters is None) != (self.spelling is None):
            expected = "none" if self.spelling is None else "some"
            raise ModelError(f"characters: the network expects {expected}, got the opposite")
        vectors = self.embedding(tokens)  # (B, T, word_size)
        if self.spelling is not None:
            vectors = torch.cat([vectors, self.spelling(characters)], dim=2)  # (B, T, width)
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
    """

    def __init__(self, characters: int, character_size: int, width: int) -> None:
        super().__init__()
        self.embedding = small_embedding(characters, character_size)
        self.convolution = nn.Conv1d(character_size, width, kernel_size=3, padding=1)

    def forward(self, characters: Tensor) -> Tensor:
        """Vectors (B, T, width) of letters (B, T, L)."""
        rows, steps, _ = characters.shape
        letters = characters.flatten(0, 1)  # (B·T, L)
        seen = self.exported(letters) if torch.onnx.is_in_onnx_export() else self._seen(letters)
        # No value is below 0, so masked places never win, and a word without letters gets 0.
        return seen.amax(dim=2).reshape(rows, steps, -1)  # (B, T, width)

    def _seen(self, letters: Tensor) -> Tensor:
        """The convolution's values (N, width, L) of letters (N, L), 0 for padding."""
        is_padding = (letters == 0)[:, None, :]  # (N, 1, L)
        # The embedding of padding is 0, as is the padding of the convolution.
        embedded = self.embedding(letters).transpose(1, 2)  # (N, E, L)
        seen = functional.relu(self.convolution(embedded))  # (N, width, L)
        return seen.masked_fill(is_padding, 0.0)

    def exported(self, letters: Tensor) -> Tensor:
        """The same values, masked by the convolution itself.

        The mask of a tagger took 18 % of a run, as ONNX Runtime broadcasts it.
        """
        table, kernels = self._masking_weights()
        embedded = functional.embedding(letters, table).transpose(1, 2)  # (N, E + 1, L)
        bias, padding = self.convolution.bias, self.convolution.padding[0]
        return functional.relu(functional.conv1d(embedded, kernels, bias, padding=padding))

    def _masking_weights(self) -> tuple[Tensor, Tensor]:
        """Table (characters, E + 1) and kernels (width, E + 1, 3) with an entry that marks padding.

        The marker's weight is minus the greatest value that letters can give, so that ReLU makes 0
        of it. ONNX Runtime computes both once, when it loads the graph.
        """
        table, kernels = self.embedding.weight, self.convolution.weight
        marker = torch.zeros(len(table), 1)
        marker[0] = 1.0
        bound = (kernels.abs() * table.abs().amax(dim=0)[:, None]).sum(dim=(1, 2))  # (width,)
        if self.convolution.bias is not None:
            bound = bound + self.convolution.bias.abs()
        centre = torch.zeros(1, 1, kernels.shape[2])
        # The convolution adds in another order, so its sum may be above the bound's.
        centre[..., kernels.shape[2] // 2] = -1.01
        weight = bound[:, None, None] * centre  # (width, 1, 3)
        return torch.cat([table, marker], dim=1), torch.cat([kernels, weight], dim=1)


def small_embedding(entries: int, size: int) -> nn.Embedding:
    """An embedding with small initial values; entry 0, the padding, is always 0."""
    embedding = nn.Embedding(entries, size, padding_idx=0)
    nn.init.normal_(embedding.weight, std=SMALL)
    nn.init.zeros_(embedding.weight[0].detach())
    return embedding
