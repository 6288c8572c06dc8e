"""Recipes of sequence to sequence: two sides, a network between them, and how outputs are searched and scored."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.training.recipe import CliOption, Recipe, Settings

TASKS = ("sequence-to-sequence",)


class SideSettings(Settings):
    """How the texts of one side become tokens, and those numbers (see `weir.training.data.segment`)."""

    rule: Literal["letters", "spaces", "words", "subwords"]
    lower: bool = Field(default=False, description="whether upper and lower case are one")
    minimum_count: int = Field(
        default=1, ge=1, description="rarer tokens of the training data count as unknown"
    )
    maximum: int | None = Field(
        default=None, ge=5, description="of entries, the four special ones counted; none: all"
    )
    kind: Literal["bpe", "unigram"] = Field(default="bpe", description="of subwords")
    most_tokens: int = Field(
        default=100, ge=1, description="pairs of more are not learnt from; they are tested on"
    )

    @model_validator(mode="after")
    def _subwords_need_a_maximum(self) -> Self:
        if self.rule == "subwords" and self.maximum is None:
            raise ValueError("subwords need a maximum of entries")
        return self


class CoderSettings(Settings):
    """The encoder and the decoder, in the words of `weir.training.models.seq2seq`."""

    cell: Annotated[Literal["gru", "lstm"], CliOption()] = "gru"
    word_size: int = Field(ge=1, description="of the embeddings of both sides")
    hidden: Annotated[int, CliOption()] = Field(
        ge=1, description="units of a layer; of the encoder, in each direction"
    )
    layers: Annotated[int, CliOption()] = Field(
        default=1, ge=1, le=16, description="layers of the encoder"
    )
    decoder_layers: int = Field(default=1, ge=1, le=16)
    bidirectional: bool = Field(default=True, description="the encoder reads from both ends")
    attends: Annotated[bool, CliOption("no-attention")] = Field(
        default=True, description="without attention, the decoder has the last state only"
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    is_tied: bool = Field(
        default=False, description="the output's weights are the target's embedding"
    )


class ForcingSettings(Settings):
    """Teacher forcing: the share of previous tokens that are the target's, not the network's own.

    It goes in a straight line over the steps of the run (S. Bengio et al., "Scheduled Sampling", 2015).
    """

    start: float = Field(default=1.0, ge=0.0, le=1.0)
    end: float = Field(default=1.0, ge=0.0, le=1.0)

    def share(self, done: float) -> float:
        """The share when so much of the run is done, 0 to 1."""
        return self.start + (self.end - self.start) * done


class SearchSettings(Settings):
    """How an output is searched in evaluation, beside the greedy one."""

    beam_width: Annotated[int, CliOption("beam")] = Field(
        default=4, ge=1, description="hypotheses of the beam search in the test; 1: greedy only"
    )
    length_power: float = Field(
        default=0.6,
        ge=0.0,
        description="a, where log-probabilities are divided by ((5 + length) / 6)^a; 0: not divided",
    )
    most_tokens: int = Field(default=100, ge=1, description="of an output, END counted")


class Seq2SeqRecipe(Recipe):
    """How a network learns to turn one text into another."""

    task: Literal["sequence-to-sequence"]
    source: SideSettings
    target: SideSettings
    coder: CoderSettings
    forcing: Annotated[ForcingSettings, CliOption("teacher-forcing")] = Field(
        default=ForcingSettings(),
        description="share of previous tokens that are the target's, not the network's own, at "
        "the start and the end of the run; without it: 1 1",
    )
    search: SearchSettings = SearchSettings()
    score: Literal["errors", "bleu"] = Field(
        description="errors: of whole outputs and of their tokens; bleu: lower-cased"
    )
    stress: Annotated[bool, CliOption("with-stress")] = Field(
        default=False, description="keep the stress marks of cmudict-pronounce's phonemes"
    )
    source_language: Annotated[Literal["de", "en", "fr"], CliOption()] = Field(
        default="de", description="of multi30k; without it: de"
    )
    target_language: Annotated[Literal["de", "en", "fr"], CliOption()] = Field(
        default="en", description="of multi30k; without it: en"
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
        default=None, ge=1, description="of a source; longer ones are in none of the sets"
    )
    most_rows: int | None = Field(
        default=None, ge=2, description="of the training data, drawn by the seed; none: all"
    )

    @model_validator(mode="after")
    def _targets_go_with_sources(self) -> Self:
        for name in ("dev", "test"):
            if getattr(self, f"{name}_target") and not getattr(self, name):
                raise ValueError(f"{name}_target goes with {name}")
        return self
