"""Sequence networks: one class per sequence (classification) or per step (tagging).

A network has three parts: inputs compute vectors, an encoder states, a head logits. The argument
names of `forward` in `WordNetwork` and `FrameNetwork` are the input names of the exported graph.
"""

from typing import Literal

from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.embeddings import FrameInputs, WordInputs
from weir.training.models.masking import mean_state
from weir.training.models.recurrent import Recurrent
from weir.training.models.tdnn import TDNN

Encoder = Recurrent | TDNN
Pool = Literal["last", "mean"]


class SequenceClassifier(nn.Module):
    """Encoder and head of a network that gives each sequence one class.

    Takes vectors (B, T, F) of float32 and lengths (B,) of int64. Returns logits (B, classes).

    Args:
        encoder: of the vectors.
        classes: number of classes.
        pool: classify by the encoder's last state, or by the mean of its states.
        dropout: before the output, in training.

    Raises:
        ModelError: unknown pooling.
    """

    def __init__(
        self, encoder: Encoder, *, classes: int, pool: Pool = "last", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pool not in {"last", "mean"}:
            raise ModelError(f"unknown pooling {pool!r}; there are last, mean")
        self.encoder = encoder
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.width, classes)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, classes) of vectors (B, T, F) with lengths (B,)."""
        encoded = self.encoder(vectors, lengths)
        pooled = encoded.last if self.pool == "last" else mean_state(encoded.states, lengths)
        logits: Tensor = self.output(self.dropout(pooled))  # (B, classes)
        return logits


class Tagger(nn.Module):
    """Encoder and head of a network that gives each step of a sequence a class.

    Takes vectors (B, T, F) of float32 and lengths (B,) of int64. Returns logits (B, T, classes).
    Beyond a row's length the state is 0, so the logits there are the bias of the output layer.

    Args:
        encoder: of the vectors.
        classes: number of classes.
        dropout: before the output, in training.
    """

    def __init__(self, encoder: Encoder, *, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.width, classes)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, T, classes) of vectors (B, T, F) with lengths (B,)."""
        encoded = self.encoder(vectors, lengths)
        logits: Tensor = self.output(self.dropout(encoded.states))  # (B, T, classes)
        return logits


class WordNetwork(nn.Module):
    """A classifier or tagger of sentences."""

    def __init__(self, inputs: WordInputs, core: SequenceClassifier | Tagger) -> None:
        super().__init__()
        self.inputs = inputs
        self.core = core

    def forward(self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None) -> Tensor:
        """Logits of tokens (B, T), lengths (B,) and, if the network reads them, letters (B, T, L).

        All are int64; 0 is padding, words and letters begin at 1.
        """
        logits: Tensor = self.core(self.inputs(tokens, characters), lengths)
        return logits


class FrameNetwork(nn.Module):
    """A classifier or tagger of byte frames, such as the rows of a picture."""

    def __init__(self, inputs: FrameInputs, core: SequenceClassifier | Tagger) -> None:
        super().__init__()
        self.inputs = inputs
        self.core = core

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits of frames (B, T, features) of uint8 and lengths (B,) of int64."""
        logits: Tensor = self.core(self.inputs(frames), lengths)
        return logits
