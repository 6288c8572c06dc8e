"""Factory of sequence networks, from the numbers and names of a recipe."""

from typing import Literal, TypedDict, Unpack, get_args

from weir.training.errors import ModelError
from weir.training.models.embeddings import FrameInputs, WordInputs
from weir.training.models.recurrent import Recurrent
from weir.training.models.sequences import (
    Encoder,
    FrameNetwork,
    Pool,
    SequenceClassifier,
    Tagger,
    WordNetwork,
)
from weir.training.models.tdnn import TDNN

EncoderKind = Literal["rnn", "gru", "lstm", "tdnn"]


class EncoderOptions(TypedDict, total=False):
    """Options of an encoder; defaults as in `build_encoder`."""

    layers: int
    bidirectional: bool
    dropout: float
    truncate_steps: int | None


class LetterOptions(TypedDict, total=False):
    """Options of letters; defaults as in `WordInputs`."""

    characters: int
    character_size: int
    spelling_width: int


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
    """Build an encoder with fresh weights, drawn from torch's global generator.

    Args:
        kind: of network.
        inputs: size of a step's vector.
        hidden: size of a state per direction.
        layers: number of layers. The delays of a TDNN double from layer to layer, from 1.
        bidirectional: also from end to beginning. A TDNN always reads both sides.
        dropout: between recurrent layers; after each layer of a TDNN.
        truncate_steps: see `Recurrent`.

    Raises:
        ModelError: unknown kind, or a setting that does not fit it.
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
    dilations = [2**layer for layer in range(layers)]
    return TDNN(inputs, hidden, dilations=dilations, dropout=dropout)


def build_text_classifier(
    kind: EncoderKind,
    *,
    words: int,
    classes: int,
    word_size: int = 100,
    hidden: int = 128,
    pool: Pool = "last",
    head_dropout: float = 0.0,
    letters: LetterOptions | None = None,
    **encoder: Unpack[EncoderOptions],
) -> WordNetwork:
    """Build a network that gives a sentence one class.

    Args:
        kind: of encoder.
        words: of the vocabulary, padding (0) included.
        classes: number of classes.
        word_size: of a word's embedding.
        hidden: see `build_encoder`.
        pool: see `SequenceClassifier`.
        head_dropout: on the word vectors and before the output.
        letters: None, or without `characters`: the network reads tokens only.
        encoder: see `build_encoder`.
    """
    inputs = WordInputs(words, word_size, dropout=head_dropout, **(letters or {}))
    core = SequenceClassifier(
        build_encoder(kind, inputs.width, hidden, **encoder),
        classes=classes,
        pool=pool,
        dropout=head_dropout,
    )
    return WordNetwork(inputs, core)


def build_text_tagger(
    kind: EncoderKind,
    *,
    words: int,
    classes: int,
    word_size: int = 100,
    hidden: int = 128,
    head_dropout: float = 0.0,
    letters: LetterOptions | None = None,
    **encoder: Unpack[EncoderOptions],
) -> WordNetwork:
    """Build a network that gives each word a class; arguments as `build_text_classifier`."""
    inputs = WordInputs(words, word_size, dropout=head_dropout, **(letters or {}))
    core = Tagger(
        build_encoder(kind, inputs.width, hidden, **encoder), classes=classes, dropout=head_dropout
    )
    return WordNetwork(inputs, core)


def build_frame_classifier(
    kind: EncoderKind,
    *,
    features: int,
    mean: float,
    std: float,
    classes: int,
    hidden: int = 128,
    pool: Pool = "last",
    head_dropout: float = 0.0,
    **encoder: Unpack[EncoderOptions],
) -> FrameNetwork:
    """Build a network that gives a sequence of byte frames one class.

    Args:
        kind: of encoder.
        features: of a frame.
        mean: of the training data, divided by 255.
        std: of the training data, divided by 255.
        classes: number of classes.
        hidden: see `build_encoder`.
        pool: see `SequenceClassifier`.
        head_dropout: before the output.
        encoder: see `build_encoder`.
    """
    inputs = FrameInputs(features, mean, std)
    core = SequenceClassifier(
        build_encoder(kind, inputs.width, hidden, **encoder),
        classes=classes,
        pool=pool,
        dropout=head_dropout,
    )
    return FrameNetwork(inputs, core)
