"""Inputs of sequence networks: words or frames become vectors."""

import torch
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.spelling import Spelling, small_embedding


class WordInputs(nn.Module):
    """Word vectors: an embedding of each word, optionally with a vector of its letters.

    Takes tokens (B, T) of int64, 0 for padding, and letters (B, T, L) of int64 if it was made with
    `characters`, else None. Returns (B, T, width).

    Args:
        words: number of words, padding (0) included.
        word_size: of a word's embedding.
        characters: number of letters, padding (0) included; 0: no letters are read.
        character_size: of a letter's embedding.
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
        """Vectors (B, T, width) of tokens (B, T) and their letters (B, T, L).

        Raises:
            ModelError: letters are missing, or given to a network that reads none.
        """
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

    Args:
        features: of a frame.
        mean: of the training data, divided by 255.
        std: of the training data, divided by 255.
    """

    def __init__(self, features: int, mean: float, std: float) -> None:
        super().__init__()
        self.width = features
        self.mean = mean
        self.std = std

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames (B, T, features)."""
        return (frames.to(torch.float32) / 255.0 - self.mean) / self.std
