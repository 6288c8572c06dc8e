"""The sequence-to-sequence experiment: data, both sides, network, test, and their files in a run.

vocabulary.source.txt, vocabulary.target.txt    `weir.training.data.vocabulary`
subwords.source.model, subwords.target.model    of a side that is split into subwords
samples.txt, attention.png                      outputs on the test set
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from weir.training.class_scores import Baseline
from weir.training.data import PAIR_SETS, PairData, load_pairs
from weir.training.data.pairs import divide_pairs, load_pair_file
from weir.training.data.tokenizer import Side, Sides, Tokenizer, learn_side
from weir.training.data.vocabulary import Vocabulary
from weir.training.equal_rows import describe_equal_rows
from weir.training.errors import DataError, RunError
from weir.training.loop import Task
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.run_directory import (
    Evaluation,
    PairRecord,
    RunRecord,
    SplitRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
    write_atomically,
)
from weir.training.seq2seq.batches import PackedPairs, drop_long, make_task, pack
from weir.training.seq2seq.evaluation import copy_or_most_frequent, generate, score, write_samples
from weir.training.seq2seq.figures import draw_attention
from weir.training.seq2seq.recipes import Seq2SeqRecipe, SideSettings
from weir.training.splits import Splits, describe_test_rows, draw_training_rows, read_splits

VOCABULARY = "vocabulary.{}.txt"
SUBWORDS = "subwords.{}.model"
SAMPLES = "samples.txt"
ATTENTION = "attention.png"


@dataclass(frozen=True, slots=True)
class Seq2SeqExperiment:
    """A recipe with its data in memory; see `weir.training.train.Experiment`.

    notes: on the test set.
    """

    recipe: Seq2SeqRecipe
    train: PackedPairs
    validation: PackedPairs
    held_out: PairData
    sides: Sides
    checksum: str
    baseline: Baseline
    notes: dict[str, str]
    split_checksums: SplitRecord
    classes: tuple[str, ...] = ()

    @property
    def record(self) -> PairRecord:
        """The sizes of the vocabularies."""
        return PairRecord(
            source_words=len(self.sides.source.vocabulary),
            target_words=len(self.sides.target.vocabulary),
        )

    def build(self) -> nn.Module:
        """Build the network."""
        return build_network(self.recipe, self.record)

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """The training task on a device."""
        train, validation = self.train.to(device), self.validation.to(device)
        return make_task(train, validation, self.recipe, mixed=mixed)

    def write_files(self, out: Path) -> None:
        """Write vocabularies and subword models of both sides."""
        write_sides(self.sides, out)

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:
        """Score greedy and beam search on the test set; write samples and the attention figure."""
        if not isinstance(network, EncoderDecoder):
            raise TypeError(network)
        # A search makes many small steps, for which a GPU is no faster than the CPU.
        network = network.to("cpu")
        outputs = {
            width: generate(
                network, self.held_out.sources, self.sides, self.recipe.search, width=width
            )
            for width in {1, self.recipe.search.beam_width}
        }
        greedy, beam = outputs.pop(1), next(iter(outputs.values()), None)
        write_samples(greedy, self.held_out, self.sides, out / SAMPLES)
        if network.attends:
            draw_attention(greedy, self.held_out, self.sides, out / ATTENTION)
        network.to(device)
        evaluation = score(greedy, beam, self.held_out, self.sides, self.recipe)
        return self.baseline.beside(replace(evaluation, notes=evaluation.notes | self.notes))


def prepare(recipe: Seq2SeqRecipe) -> Seq2SeqExperiment:
    """Read all three sets, and learn both sides from the training rows; errors as `read_pairs`."""
    sets = read_pairs(recipe)
    sides = learn_sides(sets.train, recipe)
    return Seq2SeqExperiment(
        recipe=recipe,
        train=drop_long(pack(sets.train, sides), recipe),
        validation=pack(sets.validation, sides),
        held_out=sets.test,
        sides=sides,
        checksum=sets.checksum,
        baseline=copy_or_most_frequent(sets.train, sets.test, sides, recipe),
        notes=describe_test_rows(recipe, sets.split_checksums)
        | describe_equal_rows(sets.train.sources, sets.validation.sources, sets.test.sources),
        split_checksums=sets.split_checksums,
    )


def build_network(recipe: Seq2SeqRecipe, record: PairRecord) -> EncoderDecoder:
    """Build the recipe's network with fresh weights."""
    return EncoderDecoder(
        source_words=record.source_words,
        target_words=record.target_words,
        **recipe.coder.model_dump(),
    )


def read_pairs(recipe: Seq2SeqRecipe) -> Splits[PairData]:
    """Read all three sets, see `read_splits`; `DataError` if one is missing, broken or empty."""
    files = {
        "data": (recipe.data, recipe.target_data),
        "dev": (recipe.dev, recipe.dev_target),
        "test": (recipe.test, recipe.test_target),
    }
    pairs = read_splits(
        recipe,
        PAIR_SETS,
        lambda split: load_pairs(
            recipe.data,
            split,
            target_data=recipe.target_data,
            stress=recipe.stress,
            source_language=recipe.source_language,
            target_language=recipe.target_language,
        ),
        lambda setting: _file(*files[setting]),
        divide_pairs,
    )
    train = _shortened(pairs.train, recipe)
    rows = draw_training_rows(len(train), recipe)
    return replace(
        pairs,
        train=train if rows is None else train.take(rows),
        validation=_shortened(pairs.validation, recipe),
        test=_shortened(pairs.test, recipe),
    )


def read_whole(recipe: Seq2SeqRecipe) -> PairData:
    """Read all rows of the user's file as a test set; errors as `read_pairs`."""
    own = _file(recipe.data, recipe.target_data)
    if own is None:
        raise DataError(f"{recipe.data}: expected a file, got none")
    return _shortened(own, recipe)


def _file(name: str | None, target: str | None) -> PairData | None:
    if name is None:
        return None
    for each in filter(None, (name, target)):
        if not Path(each).is_file():
            raise DataError(f"{each}: expected a file, got none")
    return load_pair_file(Path(name), Path(target) if target else None)


def _shortened(data: PairData, recipe: Seq2SeqRecipe) -> PairData:
    """The rows whose source is within the recipe's limit of characters, if it has one."""
    most = recipe.most_characters
    return data if most is None else shorten(data, most)


def shorten(data: PairData, most: int) -> PairData:
    """The rows whose source has up to `most` characters; `DataError` if there are none."""
    lengths = np.array([len(source) for source in data.sources], np.int64)
    chosen = data.take(np.flatnonzero(lengths <= most))
    if not len(chosen):
        raise DataError(f"{data.name}: expected sources of up to {most} characters, got none")
    return chosen


def load_model(run: Path) -> EncoderDecoder:
    """Load a finished run's network, in eval mode, on the CPU; errors as `load_weights`."""
    record = read_record(run)
    network = build_network(part_of(record, Seq2SeqRecipe), part_of(record, PairRecord))
    load_weights(run, network)
    return network


def load_test(record: RunRecord) -> PairData:
    """Load the test pairs of a finished run; errors as `require_same_data`."""
    sets = read_pairs(part_of(record, Seq2SeqRecipe))
    require_same_data(record, sets.checksum)
    return sets.test


def load_sides(run: Path) -> Sides:
    """Load a finished run's tokenizers and vocabularies; `RunError` or `DataError` if broken."""
    return read_sides(run, part_of(read_record(run), Seq2SeqRecipe))


def read_sides(run: Path, recipe: Seq2SeqRecipe) -> Sides:
    """Read the files of `write_sides`; errors as `load_sides`."""
    return Sides(
        source=_read_side(run, "source", recipe.source),
        target=_read_side(run, "target", recipe.target),
    )


def learn_sides(train: PairData, recipe: Seq2SeqRecipe) -> Sides:
    """Learn both sides from the training rows only; errors as `learn_side`."""
    source, target = (
        side.model_dump(exclude={"most_tokens"}) for side in (recipe.source, recipe.target)
    )
    return Sides(
        source=learn_side(train.sources, **source),
        target=learn_side([pair.target for pair in train.pairs()], **target),
    )


def write_sides(sides: Sides, out: Path) -> None:
    """Write vocabularies and subword models of both sides into a run directory."""
    for name, side in (("source", sides.source), ("target", sides.target)):
        write_atomically(out / VOCABULARY.format(name), side.vocabulary.lines().encode())
        if side.tokenizer.model is not None:
            write_atomically(out / SUBWORDS.format(name), side.tokenizer.model)


def _read_side(run: Path, name: str, settings: SideSettings) -> Side:
    path = run / VOCABULARY.format(name)
    try:
        vocabulary = Vocabulary.parse(path.read_bytes().decode(), str(path))
        model = None
        if settings.rule == "subwords":
            path = run / SUBWORDS.format(name)
            model = path.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    return Side(Tokenizer(settings.rule, settings.lower, model), vocabulary)
