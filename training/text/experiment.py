"""Sequences as a problem: three sets of numbers, a network that fits them, and what is said of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weir.training.data import ImageData
from weir.training.data.vocabulary import Vocabulary
from weir.training.errors import RunError
from weir.training.experiment import Description, Evaluation
from weir.training.loop import Task
from weir.training.optimization import choose_loss
from weir.training.run_directory import (
    DataRecord,
    RunRecord,
    SequenceRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
    write_atomically,
)
from weir.training.text.batches import in_order, make_task
from weir.training.text.figures import CLASS_TABLE, draw_class_table
from weir.training.text.network import build_network
from weir.training.text.packed import Strip, build_vocabularies, to_strip
from weir.training.text.recipe import SequenceRecipe, TokenSettings
from weir.training.text.scores import answer, score, tabulate
from weir.training.text.splits import read_pictures, read_texts

VOCABULARY = "vocabulary.{}.txt"
"""Of an input, in a run directory as in a bundle."""


@dataclass(frozen=True, slots=True)
class SequenceExperiment:
    """A recipe with its data in memory; see `weir.training.experiment.Experiment`.

    vocabularies: by input, none where the steps are frames.
    """

    recipe: SequenceRecipe
    train: Strip
    validation: Strip
    held_out: Strip
    classes: tuple[str, ...]
    checksum: str
    record: SequenceRecord
    vocabularies: Mapping[str, Vocabulary]

    def build(self) -> nn.Module:
        """A network with fresh weights."""
        return build_network(self.recipe, self.record, len(self.classes))

    def make_task(self, where: torch.device, *, mixed: bool) -> Task:
        """Both sets on the device, in batches."""
        train, validation = self.train.to(where), self.validation.to(where)
        return make_task(train, validation, self.recipe, choose_loss(self.recipe), mixed=mixed)

    def describe(self) -> Description:
        """Which sequences, and what the network takes."""
        return Description(
            data=DataRecord(
                name=self.recipe.data,
                checksum=self.checksum,
                train_rows=len(self.train),
                validation_rows=len(self.validation),
                test_rows=len(self.held_out),
            ),
            classes=self.classes,
            sequence=self.record,
        )

    def write_files(self, out: Path) -> None:
        """Write the vocabularies."""
        for name, vocabulary in self.vocabularies.items():
            write_atomically(out / VOCABULARY.format(name), vocabulary.lines().encode())

    def test(self, network: nn.Module, where: torch.device, out: Path) -> Evaluation:
        """Answer the test set, and draw the table of classes."""
        answers = answer(network, in_order(self.held_out.to(where)))
        tested = score(answers, len(self.classes))
        title = f"{self.recipe.name} on {Path(self.recipe.data).name}"
        draw_class_table(tabulate(answers, self.classes), title, out / CLASS_TABLE)
        return tested


def prepare(recipe: SequenceRecipe) -> SequenceExperiment:
    """Read all three sets; vocabularies and classes are those of the training rows.

    Raises:
        DataError: data that are not here, broken, or labelled in another way than the task needs.
    """
    return _of_frames(recipe) if recipe.tokens is None else _of_texts(recipe, recipe.tokens)


def _of_texts(recipe: SequenceRecipe, settings: TokenSettings) -> SequenceExperiment:
    texts = read_texts(recipe)
    vocabularies = build_vocabularies(texts.train.rows, settings)
    classes = texts.train.classes
    train, validation, held_out = (
        to_strip(data, classes, vocabularies, settings)
        for data in (texts.train, texts.validation, texts.test)
    )
    sizes = {name: len(vocabulary) for name, vocabulary in vocabularies.items()}
    return SequenceExperiment(
        recipe=recipe,
        train=train,
        validation=validation,
        held_out=held_out,
        classes=classes,
        checksum=texts.checksum,
        record=SequenceRecord(words=sizes["tokens"], characters=sizes.get("characters")),
        vocabularies=vocabularies,
    )


def _of_frames(recipe: SequenceRecipe) -> SequenceExperiment:
    pictures = read_pictures(recipe)
    train = pictures.train
    return SequenceExperiment(
        recipe=recipe,
        train=to_rows(train),
        validation=to_rows(pictures.validation),
        held_out=to_rows(pictures.test),
        classes=train.classes,
        checksum=train.checksum,
        record=SequenceRecord(
            features=train.images.shape[2],
            mean=float(train.images.mean()) / 255.0,
            std=float(train.images.std()) / 255.0,
        ),
        vocabularies={},
    )


def to_rows(data: ImageData) -> Strip:
    """Grey pictures as sequences of their rows, from the top."""
    count, height, width, _ = data.images.shape
    return Strip(
        steps=torch.from_numpy(data.images.reshape(count * height, width)),
        lengths=torch.full((count,), height),
        targets=torch.from_numpy(data.labels),
        is_tagged=False,
    )


def load_model(run: Path) -> nn.Module:
    """A finished run's network, in eval mode, with its weights, on the CPU.

    Raises:
        RunError: no such run, one of another kind, or weights that are not the architecture's.
    """
    record = read_record(run)
    network = build_network(
        part_of(record, SequenceRecipe), part_of(record, SequenceRecord), len(record.classes)
    )
    return load_weights(run, network)


def load_test(run: Path, record: RunRecord) -> Strip:
    """The test rows of a finished run, in its own numbers.

    Raises:
        DataError: they are not here, or no longer the same.
        RunError: the run's vocabularies cannot be read, or it is of another kind.
    """
    recipe = part_of(record, SequenceRecipe)
    if recipe.tokens is None:
        pictures = read_pictures(recipe)
        require_same_data(record, pictures.test.checksum)
        return to_rows(pictures.test)
    texts = read_texts(recipe)
    require_same_data(record, texts.checksum)
    return to_strip(texts.test, record.classes, load_vocabularies(run), recipe.tokens)


def load_vocabularies(run: Path) -> dict[str, Vocabulary]:
    """A finished run's vocabularies, by input.

    Raises:
        RunError: one cannot be read, or is not the run's.
        DataError: one is broken.
    """
    sequence = part_of(read_record(run), SequenceRecord)
    sizes = {"tokens": sequence.words, "characters": sequence.characters}
    found = {}
    for name in (name for name, size in sizes.items() if size is not None):
        path = run / VOCABULARY.format(name)
        try:
            found[name] = Vocabulary.parse(path.read_bytes().decode(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error
        if len(found[name]) != sizes[name]:
            raise RunError(f"{path}: expected {sizes[name]} entries, found {len(found[name])}")
    return found
