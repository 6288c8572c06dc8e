"""The experiment on sequences: data, network and test of a classifier or tagger."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from weir.training.batching import PackedRows
from weir.training.class_scores import Baseline, most_frequent_class, most_frequent_tags
from weir.training.data import TEXT_SETS, ImageData, TextData, load, load_text
from weir.training.data.cmudict import MAIN_STRESS, STRESS
from weir.training.data.images import divide
from weir.training.data.text import divide_text
from weir.training.data.text_files import load_file
from weir.training.data.vocabulary import Vocabulary
from weir.training.equal_rows import describe_equal_rows
from weir.training.errors import DataError, ModelError, RunError
from weir.training.loop import Task
from weir.training.models.sequences import build_frame_network, build_text_network
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.run_directory import (
    Evaluation,
    RunRecord,
    SequenceRecord,
    SplitRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
    write_atomically,
)
from weir.training.splits import Splits, describe_test_rows, draw_training_rows, read_splits
from weir.training.text.batches import Sequences, build_vocabularies, in_order, make_task, pack
from weir.training.text.evaluation import (
    CLASS_TABLE,
    draw_class_table,
    predict,
    score,
    score_words,
    tabulate,
)
from weir.training.text.proposals import PROPOSAL, propose_letters
from weir.training.text.recipes import SequenceRecipe
from weir.training.text.served_tokens import compare_served_tokens

logger = logging.getLogger(__name__)

VOCABULARY = "vocabulary.{}.txt"
"""File name of an input's vocabulary, in a run directory and in a bundle."""


@dataclass(frozen=True, slots=True)
class SequenceExperiment:
    """A recipe with its data in memory; see `weir.training.train.Experiment`.

    vocabularies: by input; empty if the steps are frames.
    baseline: what the test scores are compared with.
    notes: on the test set.
    """

    recipe: SequenceRecipe
    train: Sequences
    validation: Sequences
    held_out: Sequences
    classes: tuple[str, ...]
    checksum: str
    split_checksums: SplitRecord
    record: SequenceRecord
    vocabularies: Mapping[str, Vocabulary]
    baseline: Baseline
    notes: dict[str, str]

    def build(self) -> nn.Module:
        """Build the network."""
        return build_network(self.recipe, self.record, len(self.classes))

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """The training task on a device."""
        train, validation = self.train.to(device), self.validation.to(device)
        return make_task(train, validation, self.recipe, len(self.classes), mixed=mixed)

    def write_files(self, out: Path) -> None:
        """Write the vocabularies."""
        for name, vocabulary in self.vocabularies.items():
            write_atomically(out / VOCABULARY.format(name), vocabulary.lines().encode())

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:
        """Score the test set, and draw the class table."""
        found = predict(network, in_order(self.held_out.to(device)))
        title = f"{self.recipe.name} on {Path(self.recipe.data).name}"
        draw_class_table(tabulate(found, self.classes), title, out / CLASS_TABLE)
        evaluation = score(found, len(self.classes))
        if self.recipe.data == STRESS and MAIN_STRESS in self.classes:
            # Its rows are words, not sentences.
            words = score_words(found, self.classes.index(MAIN_STRESS))
            metrics = {**evaluation.metrics, **words}
            metrics.pop("sentence_accuracy", None)
            evaluation = replace(evaluation, metrics=metrics)
        return self.baseline.beside(replace(evaluation, notes=evaluation.notes | self.notes))


def prepare(recipe: SequenceRecipe) -> SequenceExperiment:
    """Read all three sets; vocabularies and classes are of the training rows."""
    if recipe.tokens is None:
        return _of_frames(recipe)
    texts = read_texts(recipe)
    if texts.train.is_tagged:
        found = compare_served_tokens(texts.train, recipe.tokens.rule)
        if found is not None:
            logger.warning("%s", found.describe(texts.train))
    vocabularies = build_vocabularies(texts.train.rows, recipe.tokens)
    classes = texts.train.classes
    train, validation, held_out = (
        pack(data, classes, vocabularies, recipe.tokens)
        for data in (texts.train, texts.validation, texts.test)
    )
    proposal = propose_letters(recipe, texts.train, validation)
    if proposal is not None:
        logger.warning("%s", proposal)
    sizes = {name: len(vocabulary) for name, vocabulary in vocabularies.items()}
    return SequenceExperiment(
        recipe=recipe,
        train=train,
        validation=validation,
        held_out=held_out,
        classes=classes,
        checksum=texts.checksum,
        split_checksums=texts.split_checksums,
        record=SequenceRecord(words=sizes["tokens"], characters=sizes.get("characters")),
        vocabularies=vocabularies,
        baseline=most_frequent_tags(texts.train, texts.test)
        if train.is_tagged
        else most_frequent_class(train.targets.numpy(), held_out.targets.numpy(), classes),
        notes=describe_test_rows(recipe, texts.split_checksums)
        | describe_equal_rows(texts.train.rows, texts.validation.rows, texts.test.rows)
        # Again below the result, where it is not forgotten.
        | ({} if proposal is None else {PROPOSAL: proposal}),
    )


def _of_frames(recipe: SequenceRecipe) -> SequenceExperiment:
    pictures = read_pictures(recipe)
    train = pictures.train
    return SequenceExperiment(
        recipe=recipe,
        train=pack_rows(train),
        validation=pack_rows(pictures.validation),
        held_out=pack_rows(pictures.test),
        classes=train.classes,
        checksum=pictures.checksum,
        split_checksums=pictures.split_checksums,
        record=SequenceRecord(
            features=train.images.shape[2],
            mean=float(train.images.mean()) / 255.0,
            std=float(train.images.std()) / 255.0,
        ),
        vocabularies={},
        baseline=most_frequent_class(train.labels, pictures.test.labels, train.classes),
        notes=describe_equal_rows(
            train.contents(), pictures.validation.contents(), pictures.test.contents()
        ),
    )


def pack_rows(data: ImageData) -> Sequences:
    """Pack grey pictures as sequences of their pixel rows, from the top."""
    count, height, width, _ = data.images.shape
    frames = torch.from_numpy(data.images.reshape(count * height, width))  # (n·H, W)
    return Sequences(
        rows=PackedRows.of(frames, torch.full((count,), height)),
        targets=torch.from_numpy(data.labels),
        is_tagged=False,
    )


def read_texts(recipe: SequenceRecipe) -> Splits[TextData]:
    """Read all three sets, see `read_splits`; `DataError` if rows or labels do not fit the task."""
    rule = recipe.tokens.rule if recipe.tokens else "words"

    def read(setting: str) -> TextData | None:
        name = getattr(recipe, setting)
        if name is None:
            return None
        if not Path(name).is_file():
            raise DataError(f"{name}: expected a file, got none")
        return load_file(Path(name), column=recipe.column, rule=rule)

    texts = read_splits(
        recipe,
        TEXT_SETS,
        lambda split: load_text(recipe.data, split, column=recipe.column, rule=rule),
        read,
        divide_text,
    )
    for data, use in ((texts.train, "train"), (texts.validation, "validate"), (texts.test, "test")):
        _require_kind(data, recipe)
        if not data.rows:
            raise DataError(
                f"{recipe.data}: too few rows to hold some out, none is left to {use} on"
            )
    kept = draw_training_rows(len(texts.train.rows), recipe)
    train = texts.train if kept is None else texts.train.take(kept)
    for data in (texts.validation, texts.test):
        _require_known(data, train)
    return replace(texts, train=train)


def read_pictures(recipe: SequenceRecipe) -> Splits[ImageData]:
    """Read grey pictures of 28 x 28; the validation rows come from the training split."""
    given, test = (load(recipe.data, split) for split in ("train", "test"))
    seed = derive_seed(recipe.seed, Purpose.DIVISION)
    division = divide(given.labels, recipe.validation_share, seed, given.contents())
    kept = draw_training_rows(len(division.kept), recipe)
    rows = division.kept if kept is None else division.kept[kept]
    source = given.source_checksum
    checksums = SplitRecord(train=source, validation=source, test=test.source_checksum)
    return Splits(given.take(rows), given.take(division.held_out), test, given.checksum, checksums)


def _require_kind(data: TextData, recipe: SequenceRecipe) -> None:
    if data.is_tagged != (recipe.task == "tagging"):
        wanted, found = "a label for each row", "one for each token"
        if recipe.task == "tagging":
            wanted, found = found.replace("one", "a tag"), wanted
        hint = "; a file of a word and its tag a line has a name in .conll"
        raise DataError(
            f"{data.name}: {recipe.name} needs {wanted}, got {found}"
            f"{hint if recipe.task == 'tagging' else ''}"
        )


def _require_known(data: TextData, train: TextData) -> None:
    """Require a label that training has; other labels may be unknown."""
    if set(data.classes).isdisjoint(train.classes):
        raise DataError(
            f"{data.name}: expected labels of the training rows, as {train.classes[0]!r}, "
            f"got others only, as {data.classes[0]!r}"
        )


def load_model(run: Path) -> nn.Module:
    """Load a finished run's network, in eval mode, on the CPU; errors as `load_weights`."""
    record = read_record(run)
    network = build_network(
        part_of(record, SequenceRecipe), part_of(record, SequenceRecord), len(record.classes)
    )
    return load_weights(run, network)


def load_train(run: Path, record: RunRecord) -> Sequences:
    """Load a finished run's training rows, as its vocabularies encode them."""
    return _load(run, record, is_test=False)


def load_test(run: Path, record: RunRecord) -> Sequences:
    """Load a finished run's test rows, as its vocabularies encode them."""
    return _load(run, record, is_test=True)


def _load(run: Path, record: RunRecord, *, is_test: bool) -> Sequences:
    recipe = part_of(record, SequenceRecipe)
    if recipe.tokens is None:
        pictures = read_pictures(recipe)
        require_same_data(record, pictures.test.checksum)
        return pack_rows(pictures.test if is_test else pictures.train)
    texts = read_texts(recipe)
    require_same_data(record, texts.checksum)
    chosen = texts.test if is_test else texts.train
    return pack(chosen, record.classes, load_vocabularies(run), recipe.tokens)


def load_vocabularies(run: Path) -> dict[str, Vocabulary]:
    """Load a finished run's vocabularies, by input; `RunError` or `DataError` if broken."""
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
            raise RunError(f"{path}: expected {sizes[name]} entries, got {len(found[name])}")
    return found


def build_network(recipe: SequenceRecipe, record: SequenceRecord, classes: int) -> nn.Module:
    """Build a network, drawn from torch's global generator; `ModelError` if settings clash."""
    encoder, tokens, is_tagged = recipe.encoder, recipe.tokens, recipe.task == "tagging"
    core = encoder.model_dump(exclude={"cell"})
    if is_tagged:
        core["pool"] = None
    if tokens is not None and record.words is not None:
        return build_text_network(
            encoder.cell,
            words=record.words,
            classes=classes,
            word_size=tokens.size,
            letters={
                "characters": record.characters or 0,
                "character_size": tokens.letter_size,
                "spelling_width": tokens.spelling_width,
                "affix_width": tokens.affix_width,
            },
            **core,
        )
    if record.features is None or is_tagged:
        raise ModelError(f"{recipe.name}: expected frames to classify, or tokens")
    return build_frame_network(
        encoder.cell,
        features=record.features,
        mean=record.mean,
        std=record.std,
        classes=classes,
        **core,
    )
