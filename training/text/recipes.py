"""Recipes of sequence classification and tagging: settings and named recipes.

A named recipe is a function of the data set; it returns what differs from the defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.text import Rule
from weir.training.data.text_files import count_words
from weir.training.recipe import CLASS_WEIGHTS, ClassWeights, CliOption, Recipe, Setting, Settings

COLUMN = "upos"


class EncoderSettings(Settings):
    """The encoder of the steps, and the pooling of its states."""

    cell: Annotated[Literal["rnn", "gru", "lstm", "tdnn"], CliOption()] = Field(
        description="a recurrent cell, or tdnn: dilated convolutions over time"
    )
    hidden: Annotated[int, CliOption()] = Field(ge=1, description="units of a layer, per direction")
    layers: Annotated[int, CliOption()] = Field(
        default=1, ge=1, le=16, description="recurrent layers"
    )
    bidirectional: bool = False
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="on word vectors, between layers, on states"
    )
    pool: Annotated[Literal["last", "mean"], CliOption()] = Field(
        default="last", description="classify a sequence by its last state or by the mean"
    )
    truncate_steps: Annotated[int | None, CliOption()] = Field(
        default=None, ge=1, description="most steps that the gradient flows back through"
    )


class TokenSettings(Settings):
    """How words or other tokens become vectors; absent for sequences of numbers."""

    rule: Annotated[Rule, CliOption("tokens")] = Field(
        default="words",
        description="tokens of a text to classify: its words, the parts between its spaces, or "
        "its letters, which suit names, codes and other texts without words",
    )
    size: int = Field(ge=1, description="size of a word embedding")
    lower: bool = Field(default=False, description="the vocabulary is lower case")
    minimum_count: int = Field(
        default=1, ge=1, description="rarer words of the training data are unknown"
    )
    unknown_share: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="share of words replaced by unknown in training"
    )
    word_dropout_alpha: float = Field(
        default=0.0,
        ge=0.0,
        description="a: words of n training tokens are hidden with a share of at least a / (a + n)",
    )
    spelling: bool = Field(default=False, description="the network reads the letters of words too")
    letter_size: int = Field(default=32, ge=1, description="size of a letter embedding")
    spelling_width: int = Field(default=64, ge=1)
    affix_width: int = Field(
        default=0,
        ge=0,
        description="size of the vector of a word's first and last letters; 0: none",
    )
    letter_minimum_count: int = Field(
        default=1, ge=1, description="rarer letters of the training data are unknown"
    )
    unknown_letter_share: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="share of letters replaced by unknown in training"
    )
    most_letters: int = Field(
        default=24, ge=1, description="letters of a word; the rest is not read"
    )


class SequenceRecipe(Recipe):
    """A training run of a sequence classifier or tagger."""

    task: Literal["sequence-classification", "tagging"]
    encoder: EncoderSettings
    tokens: TokenSettings | None = Field(default=None, description="none: the steps are numbers")
    column: Annotated[str, CliOption()] = Field(
        default=COLUMN,
        description="tags of a CoNLL-U file: upos, xpos, deprel, feats:NAME or a number",
    )
    dev: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="validation file; none: a share of the training rows"
    )
    test: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="test file; none: the one of the data set, or --dev"
    )
    most_rows: int | None = Field(
        default=None, ge=2, description="training rows, drawn by the seed; none: all"
    )
    class_weights: ClassWeights = Field(default=0.0, ge=0.0, le=1.0, description=CLASS_WEIGHTS)

    @model_validator(mode="after")
    def _files_are_of_tokens(self) -> Self:
        given = {
            "dev": self.dev,
            "test": self.test,
            "column": self.column if self.column != COLUMN else None,
        }
        for name, value in given.items():
            if value is not None and self.tokens is None:
                raise ValueError(f"{name} goes with tokens: {self.name} reads the rows of pictures")
        if self.task == "tagging":
            if self.encoder.pool != "last":
                raise ValueError(
                    f"pool goes with sequence-classification: {self.name} tags each step"
                )
            if self.tokens is not None and self.tokens.rule == "letters":
                raise ValueError(
                    f"letters go with sequence-classification: {self.name} tags the tokens of its "
                    "file"
                )
        return self

    @model_validator(mode="after")
    def _truncation_needs_one_direction(self) -> Self:
        encoder = self.encoder
        if encoder.truncate_steps and (encoder.bidirectional or encoder.cell == "tdnn"):
            raise ValueError("truncate_steps goes with a recurrent cell of one direction")
        return self


MADE_FOR = {
    "row-digits": ("digits", "mnist", "fashion-mnist"),
    "question": ("trec", "trec-fine", "PATH"),
    "tagger": ("ewt", "PATH"),
    "stress": ("cmudict-stress", "PATH"),
}
"""The data sets of each recipe, the default first; PATH stands for a file of the user."""

EWT_WORDS = 204_577
SMALL_TREEBANK_WORDS, MEDIUM_TREEBANK_WORDS = 40_000, 120_000

COMMON: dict[str, Setting] = {
    "optimizer": {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
    "average_decay": 0.998,
    # One thread, as for LeNet: a step's matrices are small.
    "cpu_threads": 1,
    "patience": 100,
}
WORDS: dict[str, Setting] = {"size": 100, "lower": True, "minimum_count": 2, "spelling": True}


def row_digits(data: str) -> dict[str, Setting]:
    """Digits read row by row: 28 steps of 28 numbers, then one class."""
    is_small = data == "digits"
    return {
        **COMMON,
        "task": "sequence-classification",
        "architecture": "row-digits",
        "encoder": {"cell": "lstm", "hidden": 128, "dropout": 0.1},
        "epochs": 40 if is_small else 12,
        "batch_size": 32 if is_small else 128,
        "average_decay": 0.98 if is_small else 0.998,
        "validation_share": 0.1 if is_small else 0.05,
    }


def question(data: str) -> dict[str, Setting]:
    """Question classification: bidirectional LSTM over words, mean of its states."""
    return {
        **COMMON,
        "task": "sequence-classification",
        "architecture": "question",
        "encoder": {
            "cell": "lstm",
            "hidden": 128,
            "bidirectional": True,
            "dropout": 0.5,
            "pool": "mean",
        },
        "tokens": {**WORDS, "unknown_share": 0.05},
        "label_smoothing": 0.1,
        "epochs": 25 if data == "trec" else 40,
        "batch_size": 32,
        "average_decay": 0.995,
    }


def tagger(data: str) -> dict[str, Setting]:
    """Part-of-speech tagging by words and letters (X. Ma, E. Hovy, ACL 2016, without the CRF)."""
    path = Path(data)
    size = size_of_tagger(count_words(path) if path.is_file() else EWT_WORDS)
    return {
        **COMMON,
        "task": "tagging",
        "architecture": "tagger",
        "encoder": {
            "cell": "lstm",
            "hidden": size.hidden,
            "bidirectional": True,
            "dropout": size.dropout,
        },
        "tokens": {
            **WORDS,
            "minimum_count": size.minimum_count,
            "word_dropout_alpha": size.word_dropout_alpha,
            "unknown_share": 0.1,
            "spelling_width": size.spelling_width,
            "affix_width": size.affix_width,
            "letter_minimum_count": 2 if size.unknown_letter_share else 1,
            "unknown_letter_share": size.unknown_letter_share,
        },
        "optimizer": {
            "kind": "adamw",
            "learning_rate": size.learning_rate,
            "weight_decay": 1e-2,
        },
        "label_smoothing": 0.1,
        "epochs": 15,
        "batch_size": size.batch_size,
        "validation_share": size.validation_share,
        "keep": size.keep,
    }


@dataclass(frozen=True, slots=True)
class TaggerSize:
    """Those settings of a tagger that follow the number of training words."""

    hidden: int
    dropout: float
    learning_rate: float
    batch_size: int
    spelling_width: int = 50
    affix_width: int = 50
    minimum_count: int = 2
    word_dropout_alpha: float = 0.0
    unknown_letter_share: float = 0.05
    validation_share: float = 0.1
    keep: Literal["best", "last"] = "best"


def size_of_tagger(words: int) -> TaggerSize:
    """Choose the settings of a tagger that follow the number of words in its training file.

    A small treebank gives few batches, so they are smaller and the learning rate is higher. Most of
    its words occur once, so these are known, but often hidden. It also gives few validation rows:
    they say too little to choose an epoch, and each row is missed in training.
    """
    if words < SMALL_TREEBANK_WORDS:
        return TaggerSize(
            hidden=128,
            dropout=0.5,
            learning_rate=5e-3,
            batch_size=8,
            minimum_count=1,
            word_dropout_alpha=0.5,
            validation_share=0.05,
            keep="last",
        )
    if words < MEDIUM_TREEBANK_WORDS:
        return TaggerSize(hidden=160, dropout=0.5, learning_rate=3e-3, batch_size=16)
    # English-EWT: 95.23 % and 95.30 % with the first and last letters, 95.26 % and 95.33 % without.
    return TaggerSize(
        hidden=200,
        dropout=0.4,
        learning_rate=2e-3,
        batch_size=32,
        spelling_width=100,
        affix_width=0,
        unknown_letter_share=0.0,
    )


def stress(data: str) -> dict[str, Setting]:
    """Stress of syllables: one tag per phoneme."""
    # CMUdict has 122,000 training words; a file of a user is likely to have fewer.
    is_known = data == "cmudict-stress"
    return {
        **COMMON,
        "task": "tagging",
        "architecture": "stress",
        "encoder": {
            "cell": "gru",
            "hidden": 384 if is_known else 128,
            "layers": 2,
            "bidirectional": True,
            "dropout": 0.5 if is_known else 0.2,
        },
        "tokens": {"rule": "spaces", "size": 64},
        "label_smoothing": 0.05 if is_known else 0.0,
        "cpu_bfloat16": is_known,
        "epochs": 30 if is_known else 15,
        "batch_size": 128,
        "validation_share": 0.05,
    }


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "row-digits": row_digits,
    "question": question,
    "tagger": tagger,
    "stress": stress,
}


LETTERS: dict[str, Setting] = {
    "tokens": {"size": 64, "lower": False, "spelling": False, "unknown_share": 0.01},
    "encoder": {"dropout": 0.3, "pool": "last"},
    "optimizer": {"learning_rate": 3e-3},
    "epochs": 20,
    "batch_size": 64,
}
"""Defaults of letters as tokens, chosen on the validation rows of 21,000 words with their tags.

Case is kept. With the last state, 67.3 % of those rows were right, with the mean of all 66.5 %."""

TDNN: dict[str, Setting] = {"layers": 4, "hidden": 64}
"""Defaults of a TDNN encoder: delays of 1, 2, 4 and 8 steps, and fewer units than a recurrent one.

Pooling is `mean`, because the last state of a TDNN depends on its neighbours only."""


def _quick(
    epochs: int, rows: int, hidden: int, batch_size: int, **encoder: Setting
) -> dict[str, Setting]:
    return {
        "epochs": epochs,
        "most_rows": rows,
        "encoder": {"hidden": hidden, **encoder},
        "batch_size": batch_size,
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    }


QUICK: dict[str, dict[str, Setting]] = {
    "row-digits": _quick(6, 5000, 64, 32),
    "question": _quick(5, 3000, 64, 32),
    "tagger": _quick(4, 2000, 64, 16),
    "stress": _quick(5, 20_000, 64, 64, dropout=0.2),
}
"""Changes of the quick form: under a minute on one core, for tests and the demo."""
