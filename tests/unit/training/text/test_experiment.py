"""Runs on sequences: their files, loading, and the networks of recipes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.sequence_files import write_conllu
from tests.helpers.training import train
from weir.training.errors import DataError, ModelError, RunError
from weir.training.figures import CONFUSION_MATRIX, LEARNING_CURVE
from weir.training.images.experiment import load_model as load_pictures_model
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe
from weir.training.run_directory import RECORD, WEIGHTS, RunRecord, SequenceRecord, read_record
from weir.training.text.batches import in_order
from weir.training.text.evaluation import CLASS_TABLE, predict
from weir.training.text.experiment import (
    VOCABULARY,
    build_network,
    load_model,
    load_test,
    load_vocabularies,
    prepare,
)
from weir.training.text.recipes import SequenceRecipe
from weir.training.train import Monitor

CPU = torch.device("cpu")
FIGURES = {LEARNING_CURVE, CONFUSION_MATRIX, CLASS_TABLE}
WORDS, LETTERS = VOCABULARY.format("tokens"), VOCABULARY.format("characters")


@pytest.fixture
def run(tagging: SequenceRecipe, tmp_path: Path, silent: Callable[..., Monitor]) -> Path:
    """A finished run of a tagger that reads spelling."""
    train(tagging, tmp_path / "run", CPU, silent(), None)
    return tmp_path / "run"


def test_a_run_directory_is_complete(run: Path, tagging: SequenceRecipe) -> None:
    record = read_record(run)

    assert {path.name for path in run.iterdir()} == {WEIGHTS, RECORD, WORDS, LETTERS, *FIGURES}
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
    assert record.recipe == tagging and record.task == "tagging"
    assert record.classes == ["DET", "NOUN", "VERB"]
    assert record.data.train_rows + record.data.validation_rows + record.data.test_rows == 60
    assert record.image is None and record.sequence is not None
    sizes = {name: len(entries) for name, entries in load_vocabularies(run).items()}
    assert sizes == {"tokens": record.sequence.words, "characters": record.sequence.characters}
    assert set(record.test_metrics) == {
        "macro_f1",
        "sentence_accuracy",
        "baseline_accuracy",
        "baseline_macro_f1",
    }


def test_a_loaded_run_has_the_recorded_accuracy(run: Path) -> None:
    record = read_record(run)

    found = predict(load_model(run), in_order(load_test(run, record)))

    assert record.test_accuracy is not None
    assert float((found.predicted == found.expected).mean()) == pytest.approx(record.test_accuracy)


def test_normalisation_of_frames_is_that_of_the_training_rows() -> None:
    recipe = make_recipe("row-digits")
    assert isinstance(recipe, SequenceRecipe)

    problem = prepare(recipe)

    scaled = problem.train.rows.steps.double() / 255.0
    assert problem.record.mean == pytest.approx(scaled.mean().item())
    assert problem.record.std == pytest.approx(scaled.std(correction=0).item())
    assert problem.record.features == 28 and set(problem.train.lengths.tolist()) == {28}


def test_data_that_changed_since_are_noticed(run: Path, tagging: SequenceRecipe) -> None:
    record = read_record(run)
    write_conllu(Path(tagging.data), seed=9)

    with pytest.raises(DataError, match=r"SHA-256 was .* when the run was trained"):
        load_test(run, record)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (WORDS, None, rf"{WORDS}: cannot be read"),
        (WORDS, b"\xff", rf"{WORDS}: cannot be read"),
        (WORDS, b"<pad>\n<unk>\n<s>\n</s>\n", rf"{WORDS}: expected \d+ entries, got 4"),
        (LETTERS, b"<pad>\n", rf"{LETTERS}, line 2: expected '<unk>'"),
    ],
    ids=["none", "no text", "another", "broken"],
)
def test_a_broken_vocabulary_is_named(
    run: Path, name: str, content: bytes | None, message: str
) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)

    with pytest.raises((RunError, DataError), match=message):
        load_vocabularies(run)


def test_a_run_of_one_kind_is_not_taken_for_the_other(
    run: Path, small_recipe: SequenceRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    train(small_recipe, tmp_path / "pictures", CPU, silent(), None)

    with pytest.raises(RunError, match="tagger: expected a run on images, got tagging"):
        load_pictures_model(run)
    with pytest.raises(RunError, match="lenet5: expected a run on sequences, got image-"):
        load_model(tmp_path / "pictures")


def test_weights_of_another_size_are_refused(run: Path) -> None:
    record = json.loads((run / RECORD).read_text())
    record["recipe"]["encoder"]["hidden"] += 1
    (run / RECORD).write_text(json.dumps(record))

    with pytest.raises(RunError, match=f"{WEIGHTS}: not the weights of WordNetwork"):
        load_model(run)


WORD_SIZES = SequenceRecord(words=50, characters=20)
FRAMES = SequenceRecord(features=28, mean=0.1, std=0.3)


def of(name: str, **changes: Setting) -> SequenceRecipe:
    recipe = make_recipe(name, None, **changes)
    assert isinstance(recipe, SequenceRecipe)
    return recipe


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_frames_network_has_the_cells_parameters_and_a_head(cell: str, gates: int) -> None:
    hidden = 12
    network = build_network(of("row-digits", encoder={"cell": cell, "hidden": hidden}), FRAMES, 10)

    cells = gates * hidden * (28 + hidden + 2)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == cells + 10 * (hidden + 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 3},
        {"cell": "tdnn"},
        {"bidirectional": False},
        {"bidirectional": False, "truncate_steps": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "shape"), [("tagger", (2, 3, 7)), ("question", (2, 7))])
def test_words_network_answers_for_each_step_or_each_row(
    name: str, shape: tuple[int, ...], changes: dict[str, Setting]
) -> None:
    network = build_network(of(name, encoder={"hidden": 8, **changes}), WORD_SIZES, 7)
    tokens, letters = torch.randint(1, 50, (2, 3)), torch.randint(1, 20, (2, 3, 4))

    assert network(tokens, torch.tensor([3, 1]), letters).shape == shape


def test_tagging_of_frames_is_refused() -> None:
    recipe = of("row-digits", task="tagging")

    with pytest.raises(ModelError, match="row-digits: expected frames to classify, or tokens"):
        build_network(recipe, FRAMES, 10)


def test_tokens_that_the_server_would_cut_otherwise_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("do\t_\tAUX", "n't\t_\tPART", "{}\t_\tNUM")
    lines = "".join(f"{at}\t{word}" + "\t_" * 6 + "\n" for at, word in enumerate(words, 1))
    sentences = (f"# text = don't {row}\n{lines.format(row)}\n" for row in range(20))
    path = tmp_path / "x.conllu"
    path.write_text("".join(sentences))

    recipe = make_recipe("tagger", str(path))
    assert isinstance(recipe, SequenceRecipe)
    prepare(recipe)

    (message,) = caplog.messages
    assert "in 15 of 15 training rows the server would cut" in message
    assert "such as 'don' + \"'\" + 't' for 'do' + \"n't\"; so" in message


def test_a_run_that_keeps_the_last_epoch_records_it(
    tagging: SequenceRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    assert tagging.keep == "last"

    record = train(tagging, tmp_path / "run", CPU, silent(), None)

    assert record.best_epoch == len(record.epochs) == tagging.epochs
