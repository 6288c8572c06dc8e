"""Sequence networks: one class per sequence (classification) or per step (tagging).

A network has three parts: inputs compute vectors, an encoder states, a head logits. The argument
names of `forward` in `WordNetwork` and `FrameNetwork` are the input names of the exported graph.
"""

from typing import Literal, TypedDict, Unpack, get_args

from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.embeddings import FrameInputs, WordInputs
from weir.training.models.recurrent import Recurrent
from weir.training.models.tdnn import TDNN

Encoder = Recurrent | TDNN
EncoderKind = Literal["rnn", "gru", "lstm", "tdnn"]
Pool = Literal["last", "mean"]


class EncoderOptions(TypedDict, total=False):
    """Options of an encoder; defaults as in `build_encoder`."""

    layers: int
    bidirectional: bool
    truncate_steps: int | None


class CoreOptions(EncoderOptions, total=False):
    """Options of encoder and head.

    hidden: 128, see `build_encoder`.
    pool: see `SequenceClassifier`; None gives each step a class.
    dropout: on word vectors, in the encoder and before the output.
    """

    hidden: int
    pool: Pool | None
    dropout: float


class LetterOptions(TypedDict, total=False):
    """Options of letters; defaults as in `WordInputs`."""

    characters: int
    character_size: int
    spelling_width: int
    affix_width: int


class SequenceClassifier(nn.Module):
    """Encoder and head of a network that gives each sequence, or each of its steps, one class.

    Takes vectors (B, T, F) of float32 and lengths (B,) of int64. `pool` says what is classified:

        last, mean    a sequence, by its last state or the mean of its states: (B, classes)
        None          each step (tagging): (B, T, classes). Beyond a row's length the state is 0, so
                      the logits there are the bias of the output layer.
    """

    def __init__(
        self, encoder: Encoder, *, classes: int, pool: Pool | None = "last", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pool not in {"last", "mean", None}:
            raise ModelError(f"unknown pooling {pool!r}; there are last, mean")
        self.encoder = encoder
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.width, classes)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Logits of vectors (B, T, F) with lengths (B,)."""
        states, last = self.encoder(vectors, lengths)
        if self.pool is not None:
            # States beyond a row's length are 0, so their sum is that of the real steps.
            states = last if self.pool == "last" else states.sum(dim=1) / lengths[:, None]  # (B, W)
        logits: Tensor = self.output(self.dropout(states))
        return logits


class WordNetwork(nn.Module):
    """A classifier or tagger of sentences."""

    def __init__(self, inputs: WordInputs, core: SequenceClassifier) -> None:
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

    def __init__(self, inputs: FrameInputs, core: SequenceClassifier) -> None:
        super().__init__()
        self.inputs = inputs
        self.core = core

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits of frames (B, T, features) of uint8 and lengths (B,) of int64."""
        logits: Tensor = self.core(self.inputs(frames), lengths)
        return logits


def build_text_network(
    kind: EncoderKind,
    *,
    words: int,
    classes: int,
    word_size: int = 100,
    letters: LetterOptions | None = None,
    **core: Unpack[CoreOptions],
) -> WordNetwork:
    """Build a network that gives a sentence one class, or each of its words.

    Args:
        words: of the vocabulary, padding (0) included.
        letters: None, or without `characters`: the network reads tokens only.
    """
    inputs = WordInputs(words, word_size, dropout=core.get("dropout", 0.0), **(letters or {}))
    return WordNetwork(inputs, _build_core(kind, inputs.width, classes, **core))


def build_frame_network(
    kind: EncoderKind,
    *,
    features: int,
    mean: float,
    std: float,
    classes: int,
    **core: Unpack[CoreOptions],
) -> FrameNetwork:
    """Build a network that gives a sequence of byte frames one class; see `FrameInputs`."""
    inputs = FrameInputs(features, mean, std)
    return FrameNetwork(inputs, _build_core(kind, inputs.width, classes, **core))


def build_encoder(
    kind: EncoderKind,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    truncate_steps: int | None = None,
) -> Encoder:
    """Build an encoder, drawn from torch's global generator; `ModelError` if settings clash.

    Args:
        hidden: size of a state per direction.
        layers: number of layers. The delays of a TDNN double from layer to layer, from 1.
        bidirectional: also from end to beginning. A TDNN always reads both sides.
        dropout: between recurrent layers; after each layer of a TDNN.
    """
    if kind not in get_args(EncoderKind):
        raise ModelError(f"unknown encoder {kind!r}; there are {', '.join(get_args(EncoderKind))}")
    if kind != "tdnn":
        return Recurrent(
            kind,
            inputs,
            hidden,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
            truncate_steps=truncate_steps,
        )
    if truncate_steps is not None:
        raise ModelError("a tdnn has no steps to truncate: nothing goes back through time")
    return TDNN(inputs, hidden, dilations=[2**layer for layer in range(layers)], dropout=dropout)


def _build_core(
    kind: EncoderKind,
    inputs: int,
    classes: int,
    *,
    hidden: int = 128,
    pool: Pool | None = "last",
    dropout: float = 0.0,
    **options: Unpack[EncoderOptions],
) -> SequenceClassifier:
    encoder = build_encoder(kind, inputs, hidden, dropout=dropout, **options)
    return SequenceClassifier(encoder, classes=classes, pool=pool, dropout=dropout)
