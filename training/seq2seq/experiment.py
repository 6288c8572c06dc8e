"""Pairs of texts as a problem: both sides learnt from the training rows, a network between them, and its scores."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weir.training.data.pairs import PairData
from weir.training.experiment import Description, Evaluation
from weir.training.loop import Task
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.optimization import choose_loss
from weir.training.run_directory import (
    DataRecord,
    PairRecord,
    RunRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
)
from weir.training.seq2seq.answers import answer
from weir.training.seq2seq.batches import make_task
from weir.training.seq2seq.evaluation import judge
from weir.training.seq2seq.figures import draw_attention
from weir.training.seq2seq.packed import Pairs, fitting, to_pairs
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.samples import leave_samples
from weir.training.seq2seq.sides import Sides, learn_sides, read_sides, write_sides
from weir.training.seq2seq.splits import read_pairs

SAMPLES = "samples.txt"
ATTENTION = "attention.png"


@dataclass(frozen=True, slots=True)
class Seq2SeqExperiment:
    """A recipe with its data in memory; see `weir.training.experiment.Experiment`."""

    recipe: Seq2SeqRecipe
    train: Pairs
    validation: Pairs
    held_out: PairData
    sides: Sides
    checksum: str

    def build(self) -> nn.Module:
        """A network with fresh weights."""
        return build_network(self.recipe, self._record())

    def make_task(self, where: torch.device, *, mixed: bool) -> Task:
        """Both sets on the device, in batches."""
        train, validation = self.train.to(where), self.validation.to(where)
        return make_task(train, validation, self.recipe, choose_loss(self.recipe), mixed=mixed)

    def describe(self) -> Description:
        """Which pairs, and how large the vocabularies are."""
        return Description(
            data=DataRecord(
                name=self.recipe.data,
                checksum=self.checksum,
                train_rows=len(self.train),
                validation_rows=len(self.validation),
                test_rows=len(self.held_out),
            ),
            classes=(),
            pairs=self._record(),
        )

    def write_files(self, out: Path) -> None:
        """Write how both sides are cut and numbered."""
        write_sides(self.sides, out)

    def test(self, network: nn.Module, where: torch.device, out: Path) -> Evaluation:
        """Answer the test set, greedily and by beam; leave samples and a picture of the attention."""
        if not isinstance(network, EncoderDecoder):
            raise TypeError(network)
        # Step by step and row by row, a search gains nothing from a GPU here.
        network = network.to("cpu")
        widths = {1, self.recipe.search.beam_width}
        found = {
            width: answer(
                network, self.held_out.sources, self.sides, self.recipe.search, width=width
            )
            for width in widths
        }
        greedy, beam = found.pop(1), next(iter(found.values()), None)
        leave_samples(greedy, self.held_out, self.sides, out / SAMPLES)
        if network.attends:
            draw_attention(greedy, self.held_out, self.sides, out / ATTENTION)
        network.to(where)
        return judge(greedy, beam, self.held_out, self.sides, self.recipe)

    def _record(self) -> PairRecord:
        return PairRecord(
            source_words=len(self.sides.source.vocabulary),
            target_words=len(self.sides.target.vocabulary),
        )


def prepare(recipe: Seq2SeqRecipe) -> Seq2SeqExperiment:
    """Read all three sets, and learn both sides from the training rows.

    Raises:
        DataError: data that are not here or broken.
    """
    sets = read_pairs(recipe)
    sides = learn_sides(sets.train, recipe)
    return Seq2SeqExperiment(
        recipe=recipe,
        train=fitting(to_pairs(sets.train, sides), recipe),
        validation=to_pairs(sets.validation, sides),
        held_out=sets.test,
        sides=sides,
        checksum=sets.checksum,
    )


def build_network(recipe: Seq2SeqRecipe, record: PairRecord) -> EncoderDecoder:
    """The network a recipe asks for, with fresh weights."""
    return EncoderDecoder(
        source_words=record.source_words,
        target_words=record.target_words,
        **recipe.coder.model_dump(),
    )


def load_model(run: Path) -> EncoderDecoder:
    """A finished run's network, in eval mode, with its weights, on the CPU.

    Raises:
        RunError: no such run, one of another kind, or weights that are not the architecture's.
    """
    record = read_record(run)
    network = build_network(part_of(record, Seq2SeqRecipe), part_of(record, PairRecord))
    load_weights(run, network)
    return network


def load_test(record: RunRecord) -> PairData:
    """The test pairs of a finished run.

    Raises:
        DataError: they are not here, or no longer the same.
        RunError: a run of another kind.
    """
    sets = read_pairs(part_of(record, Seq2SeqRecipe))
    require_same_data(record, sets.checksum)
    return sets.test


def load_sides(run: Path) -> Sides:
    """How a finished run cuts and numbers both sides; errors as `load_model`."""
    return read_sides(run, part_of(read_record(run), Seq2SeqRecipe))
