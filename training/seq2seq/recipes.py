"""Recipes of sequence to sequence: settings and named recipes.

A named recipe is a function of the data set; it returns what differs from the defaults.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.training.recipe import CliOption, Recipe, Setting, Settings


class SideSettings(Settings):
    """Tokenizer and vocabulary of one side (see `weir.training.data.tokenizer`)."""

    rule: Literal["letters", "spaces", "words", "subwords"]
    lower: bool = Field(default=False, description="make texts lower case")
    minimum_count: int = Field(
        default=1, ge=1, description="rarer tokens of the training data are unknown"
    )
    maximum: int | None = Field(
        default=None,
        ge=5,
        description="entries of the vocabulary, the four special ones included; none: all",
    )
    kind: Literal["bpe", "unigram"] = Field(default="bpe", description="model of the subwords")
    most_tokens: int = Field(
        default=100, ge=1, description="longer pairs are not trained on; they are tested on"
    )

    @model_validator(mode="after")
    def _subwords_need_a_maximum(self) -> Self:
        if self.rule == "subwords" and self.maximum is None:
            raise ValueError("subwords need a maximum of entries")
        return self


class CoderSettings(Settings):
    """Encoder and decoder, with the arguments of `weir.training.models.seq2seq`."""

    cell: Annotated[Literal["gru", "lstm"], CliOption()] = "gru"
    word_size: int = Field(ge=1, description="size of the embeddings of both sides")
    hidden: Annotated[int, CliOption()] = Field(
        ge=1, description="units of a layer; in the encoder, per direction"
    )
    layers: Annotated[int, CliOption()] = Field(
        default=1, ge=1, le=16, description="layers of the encoder"
    )
    decoder_layers: int = Field(default=1, ge=1, le=16)
    bidirectional: bool = Field(default=True, description="the encoder reads in both directions")
    attends: Annotated[bool, CliOption("no-attention")] = Field(
        default=True, description="without attention, the decoder has the last state only"
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    is_tied: bool = Field(
        default=False, description="the output layer shares the weights of the target embedding"
    )


class ForcingSettings(Settings):
    """Teacher forcing: the share of previous tokens taken from the target, not from the network.

    The share changes linearly over the steps of the run (S. Bengio et al., "Scheduled Sampling",
    2015).
    """

    start: float = Field(default=1.0, ge=0.0, le=1.0)
    end: float = Field(default=1.0, ge=0.0, le=1.0)

    def share(self, done: float) -> float:
        """The share after a part of the run, 0 to 1."""
        return self.start + (self.end - self.start) * done


class SearchSettings(Settings):
    """Beam search in evaluation, beside greedy search."""

    beam_width: Annotated[int, CliOption("beam")] = Field(
        default=4, ge=1, description="hypotheses of the beam search in the test; 1: greedy only"
    )
    length_power: float = Field(
        default=0.6,
        ge=0.0,
        description="a, where log-probabilities are divided by ((5 + length) / 6)^a; 0: undivided",
    )
    most_tokens: int = Field(default=100, ge=1, description="tokens of an output, END included")


class Seq2SeqRecipe(Recipe):
    """A training run of a sequence-to-sequence network."""

    task: Literal["sequence-to-sequence"]
    source: SideSettings
    target: SideSettings
    coder: CoderSettings
    forcing: Annotated[ForcingSettings, CliOption("teacher-forcing")] = Field(
        default=ForcingSettings(),
        description="share of previous tokens taken from the target, not from the network, at "
        "the start and the end of the run; without it: 1 1",
    )
    search: SearchSettings = SearchSettings()
    score: Literal["errors", "bleu"] = Field(
        description="errors: word and token error rates; bleu: on lower-case texts"
    )
    stress: Annotated[bool, CliOption("with-stress", data_set="cmudict-pronounce")] = Field(
        default=False, description="keep the stress marks of cmudict-pronounce's phonemes"
    )
    source_language: Annotated[Literal["de", "en", "fr"], CliOption(data_set="multi30k")] = Field(
        default="de", description="source language of multi30k; without it: de"
    )
    target_language: Annotated[Literal["de", "en", "fr"], CliOption(data_set="multi30k")] = Field(
        default="en", description="target language of multi30k; without it: en"
    )
    target_data: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="targets of --data, line by line; none: after a tab in --data"
    )
    dev: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="validation file; none: a share of the training rows"
    )
    dev_target: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="targets of --dev, line by line; none: after a tab in --dev"
    )
    test: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="test file; none: the one of the data set, or --dev"
    )
    test_target: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="targets of --test, line by line; none: after a tab in --test"
    )
    most_characters: int | None = Field(
        default=None,
        ge=1,
        description="characters of a source; longer ones are left out of all sets",
    )
    most_rows: int | None = Field(
        default=None, ge=2, description="training rows, drawn by the seed; none: all"
    )

    @model_validator(mode="after")
    def _targets_go_with_sources(self) -> Self:
        for name in ("dev", "test"):
            if getattr(self, f"{name}_target") and not getattr(self, name):
                raise ValueError(f"{name}_target goes with {name}")
        return self


MADE_FOR = {
    "pronounce": ("cmudict-pronounce", "g014b2b", "PATH"),
    "translate": ("multi30k", "PATH"),
}
"""The data sets of each recipe, the default first; PATH stands for one or two user files."""

COMMON: dict[str, Setting] = {
    "task": "sequence-to-sequence",
    "optimizer": {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
    "label_smoothing": 0.1,
    "average_decay": 0.999,
    # One thread: a step of the decoder is a small matrix.
    "cpu_threads": 1,
    "cpu_bfloat16": True,
    "patience": 100,
}


def pronounce(data: str) -> dict[str, Setting]:
    """Pronunciation of English words: letters to phonemes."""
    is_known = data in ("cmudict-pronounce", "g014b2b")
    return {
        **COMMON,
        "architecture": "pronounce",
        "source": {"rule": "letters", "lower": True},
        "target": {"rule": "spaces"},
        "coder": {
            "cell": "gru",
            "word_size": 64,
            "hidden": 256,
            "layers": 2 if is_known else 1,
            "dropout": 0.3 if is_known else 0.2,
        },
        "score": "errors",
        "search": {"most_tokens": 40},
        "epochs": 20 if is_known else 30,
        "batch_size": 128 if is_known else 32,
        # Of many words a small share is enough to choose the epoch.
        "validation_share": 0.02 if is_known else 0.1,
    }


def translate(data: str) -> dict[str, Setting]:
    """Translation: subwords of both languages (D. Bahdanau et al., 2015, with fewer units)."""
    side: dict[str, Setting] = {"rule": "subwords", "lower": True, "maximum": 5000}
    return {
        **COMMON,
        "architecture": "translate",
        "source": side,
        "target": side,
        "coder": {"cell": "gru", "word_size": 256, "hidden": 256, "dropout": 0.4, "is_tied": True},
        "score": "bleu",
        "epochs": 14 if data == "multi30k" else 30,
        "batch_size": 64,
    }


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "pronounce": pronounce,
    "translate": translate,
}

QUICK: dict[str, dict[str, Setting]] = {
    "pronounce": {
        "most_characters": 6,
        "most_rows": 16_000,
        "epochs": 8,
        "batch_size": 64,
        "coder": {"hidden": 96, "layers": 1, "dropout": 0.2},
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    },
    "translate": {
        "most_characters": 60,
        "most_rows": 4000,
        "epochs": 5,
        "batch_size": 32,
        "source": {"maximum": 1000},
        "target": {"maximum": 1000},
        "coder": {"word_size": 64, "hidden": 96, "dropout": 0.2},
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    },
}
"""Changes of the quick form: under a minute on one core, for tests and the demo."""
