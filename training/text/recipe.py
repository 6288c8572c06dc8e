"""Recipes of sequences: one class for a whole one, or one for each of its steps."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.training.recipe import CliOption, Recipe, Settings

COLUMN = "upos"
TASKS = ("sequence-classification", "tagging")


class EncoderSettings(Settings):
    """What reads the steps, and how a class is made of its states."""

    cell: Annotated[Literal["rnn", "gru", "lstm", "tdnn"], CliOption()] = Field(
        description="a recurrent cell, or tdnn: dilated convolutions over time"
    )
    hidden: Annotated[int, CliOption()] = Field(
        ge=1, description="units of a layer, in each direction"
    )
    layers: Annotated[int, CliOption()] = Field(
        default=1, ge=1, le=16, description="recurrent layers"
    )
    bidirectional: bool = False
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="on vectors of words, between layers, on states"
    )
    pool: Annotated[Literal["last", "mean"], CliOption()] = Field(
        default="last", description="classify a sequence by its last state or by the mean"
    )
    truncate_steps: Annotated[int | None, CliOption()] = Field(
        default=None, ge=1, description="most steps that the gradient flows back through"
    )


class TokenSettings(Settings):
    """How words, or other tokens, become vectors; none of it for sequences of numbers."""

    rule: Literal["words", "spaces"] = Field(
        default="words", description="how a text is cut into tokens when the network is served"
    )
    size: int = Field(ge=1, description="of an embedding")
    lower: bool = Field(
        default=False, description="whether the vocabulary knows small letters only"
    )
    minimum_count: int = Field(
        default=1, ge=1, description="rarer words of the training data count as unknown"
    )
    unknown_share: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="of words hidden in training, as if unknown"
    )
    spelling: bool = Field(default=False, description="whether a network reads the letters too")
    letter_size: int = Field(default=32, ge=1, description="of a letter's embedding")
    spelling_width: int = Field(default=64, ge=1)
    most_letters: int = Field(default=24, ge=1, description="of a word; the rest is not read")


class SequenceRecipe(Recipe):
    """How a network learns to classify sequences, or their steps."""

    task: Literal["sequence-classification", "tagging"]
    encoder: EncoderSettings
    tokens: TokenSettings | None = Field(default=None, description="none: the steps are numbers")
    column: Annotated[str, CliOption()] = Field(
        default=COLUMN, description="tags of a CoNLL-U file: upos, xpos, deprel or feats:NAME"
    )
    dev: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="validation file; none: a share of the training rows"
    )
    test: Annotated[str | None, CliOption(is_file=True)] = Field(
        default=None, description="test file; none: the one of the data set, or --dev"
    )
    most_rows: int | None = Field(
        default=None, ge=2, description="of the training data, drawn by the seed; none: all"
    )

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
        if self.encoder.pool != "last" and self.task == "tagging":
            raise ValueError(f"pool goes with sequence-classification: {self.name} tags each step")
        return self

    @model_validator(mode="after")
    def _truncation_needs_one_direction(self) -> Self:
        encoder = self.encoder
        if encoder.truncate_steps and (encoder.bidirectional or encoder.cell == "tdnn"):
            raise ValueError("truncate_steps goes with a recurrent cell of one direction")
        return self
