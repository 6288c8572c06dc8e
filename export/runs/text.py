"""Export of text runs: classifiers and taggers of tokens, and classifiers of frames."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.bundle.sequences import PaddedAxis, Tokenisation
from weir.export.int8 import CALIBRATION_ROWS, StaticInt8
from weir.export.runs.provenance import data_name, describe_random, provenance_of, test_name
from weir.export.spec import ExportSpec, RunExport
from weir.training.data.vocabulary import PAD, UNKNOWN
from weir.training.errors import DataError, TrainingError
from weir.training.loop import Batch
from weir.training.run_directory import RunRecord, SequenceRecord, part_of
from weir.training.text.batches import Sequences
from weir.training.text.experiment import load_model, load_test, load_train, load_vocabularies
from weir.training.text.recipes import SequenceRecipe

TOKENS, CHARACTERS, FRAMES, LENGTHS = "tokens", "characters", "frames", "lengths"
LOGITS = "logits"
TIME, LETTERS = "time", "letters"
"""Padded axes."""


class ClassifierOutputs(NamedTuple):
    """logits (B, classes), and their softmax."""

    logits: Tensor
    probabilities: Tensor


class TaggerOutputs(NamedTuple):
    """logits (B, T, classes), and their argmax at each step (B, T)."""

    logits: Tensor
    tag_ids: Tensor


class WordGraph(nn.Module):
    """A classifier or tagger of words, with its served outputs."""

    def __init__(self, network: nn.Module, *, is_tagging: bool) -> None:
        super().__init__()
        self.network = network
        self.is_tagging = is_tagging

    def forward(
        self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None
    ) -> ClassifierOutputs | TaggerOutputs:
        """Predict from tokens (B, T), lengths (B,) and optionally letters (B, T, L)."""
        logits = self.network(tokens, lengths, characters)
        if self.is_tagging:
            return TaggerOutputs(logits, logits.argmax(dim=-1))
        return ClassifierOutputs(logits, torch.softmax(logits, dim=-1))


class FrameGraph(nn.Module):
    """A classifier of frames, with its served outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, lengths: Tensor) -> ClassifierOutputs:
        """Classify frames (B, T, features) of uint8 with lengths (B,)."""
        logits = self.network(frames, lengths)
        return ClassifierOutputs(logits, torch.softmax(logits, dim=-1))


MOST_STEPS = 512
"""The limit of a row's length; it bounds the cost of a request, and training rows may exceed it."""

_EXAMPLE_ROWS = 64
_CALIBRATION_SEED = 0


def load(run: Path, record: RunRecord) -> RunExport:
    """Load the network and test rows, or random rows without the data."""
    recipe, sequence = part_of(record, SequenceRecipe), part_of(record, SequenceRecord)
    try:
        packed = load_test(run, record)
        within = _servable(packed, record)
    except TrainingError as error:
        described = describe_random(record, error)
        examples = _random_rows(recipe, sequence)
    else:
        described = f"test rows of {test_name(record)}"
        spread = torch.linspace(0, len(within) - 1, min(_EXAMPLE_ROWS, len(within))).long()
        examples = _named(packed.take(within[spread]), sequence)
    network = load_model(run)
    module = (
        FrameGraph(network)
        if recipe.tokens is None
        else WordGraph(network, is_tagging=recipe.task == "tagging")
    )
    return RunExport(module, examples, _spec(run, record, described))


def int8_settings(run: Path, record: RunRecord, max_drop: float) -> StaticInt8:
    """Training rows to calibrate with, drawn from a fixed seed, and the whole test set.

    Rows that are too long to be served are left out.
    """
    sequence = part_of(record, SequenceRecord)
    packed, test = load_train(run, record), load_test(run, record)
    within = _servable(packed, record)
    drawn = torch.randperm(len(within), generator=torch.Generator().manual_seed(_CALIBRATION_SEED))
    calibration = packed.take(within[drawn[:CALIBRATION_ROWS].sort().values])
    whole = test.take(_servable(test, record))
    return StaticInt8(
        calibration=_arrays(calibration, sequence),
        calibration_from=f"training rows of {data_name(record)}, seed {_CALIBRATION_SEED}",
        test=_arrays(whole, sequence),
        test_from=f"test rows of {test_name(record)}",
        # training's NO_TARGET equals NO_ANSWER. A class unseen in training always counts as wrong.
        answers=whole.targets.numpy(),
        output=LOGITS,
        max_drop=max_drop,
    )


def _servable(packed: Sequences, record: RunRecord) -> Tensor:
    """Indices (rows,) of the rows short enough to be served; DataError if every row is too long."""
    rows = (packed.lengths <= MOST_STEPS).nonzero().flatten()
    if not len(rows):
        raise DataError(
            f"{data_name(record)}: expected a test row of at most {MOST_STEPS} steps, "
            f"the shortest has {int(packed.lengths.min())}"
        )
    return rows


def _arrays(batch: Batch, sequence: SequenceRecord) -> dict[str, NDArray[Any]]:
    return {name: rows.numpy() for name, rows in _named(batch, sequence).items()}


def _named(batch: Batch, sequence: SequenceRecord) -> dict[str, Tensor]:
    """The tensors of a batch by the graph's input names, in the order of `forward`."""
    first = FRAMES if sequence.words is None else TOKENS
    names = (first, LENGTHS, CHARACTERS)[: len(batch.inputs)]
    return dict(zip(names, batch.inputs, strict=True))


def _random_rows(recipe: SequenceRecipe, sequence: SequenceRecord) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(least: int, most: int, *shape: int) -> Tensor:
        return torch.randint(least, most, shape, generator=generator)

    steps = 20
    lengths = draw(1, steps + 1, _EXAMPLE_ROWS)
    lengths[0] = steps
    if sequence.features is not None:
        frames = draw(0, 256, _EXAMPLE_ROWS, steps, sequence.features).to(torch.uint8)
        return {FRAMES: frames, LENGTHS: lengths}
    rows = {TOKENS: draw(0, sequence.words or 1, _EXAMPLE_ROWS, steps), LENGTHS: lengths}
    if sequence.characters is not None and recipe.tokens is not None:
        letters = min(8, recipe.tokens.most_letters)
        rows[CHARACTERS] = draw(1, sequence.characters, _EXAMPLE_ROWS, steps, letters)
    return rows


def _spec(run: Path, record: RunRecord, examples: str) -> ExportSpec:
    recipe = part_of(record, SequenceRecipe)
    is_tagging = recipe.task == "tagging"
    outputs = TaggerOutputs._fields if is_tagging else ClassifierOutputs._fields
    sequence = part_of(record, SequenceRecord)
    first = FRAMES if sequence.words is None else TOKENS
    axes = {first: {0: "batch", 1: TIME}, LENGTHS: {0: "batch"}}
    if sequence.characters is not None:
        axes[CHARACTERS] = {0: "batch", 1: TIME, 2: LETTERS}
    padding = {name: PAD for name, named in axes.items() if TIME in named.values()}
    padded = {TIME: PaddedAxis(maximum=MOST_STEPS, lengths=LENGTHS, padding=padding)}
    if CHARACTERS in axes and recipe.tokens is not None:
        padded[LETTERS] = PaddedAxis(maximum=recipe.tokens.most_letters, padding={CHARACTERS: PAD})
    return ExportSpec(
        task=recipe.task,
        architecture=record.architecture,
        outputs=outputs,
        axes=axes,
        padded_axes=padded,
        labels=dict.fromkeys(outputs[:1] if is_tagging else outputs, record.classes),
        vocabularies={name: each.entries for name, each in load_vocabularies(run).items()},
        tokenisation=_tokenisation(recipe),
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )


def _tokenisation(recipe: SequenceRecipe) -> Tokenisation | None:
    tokens = recipe.tokens
    if tokens is None:
        return None
    return Tokenisation(
        rule=tokens.rule,
        lower=tokens.lower,
        unknown=UNKNOWN,
        characters=CHARACTERS if tokens.spelling else None,
    )
