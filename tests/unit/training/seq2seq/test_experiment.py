"""Runs on pairs: their files, loading, and learning."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.training import train
from weir.training.checkpoint import read_checkpoint
from weir.training.data.pairs import PairData
from weir.training.errors import DataError, InterruptedRunError, RunError
from weir.training.figures import LEARNING_CURVE
from weir.training.recipes import change_recipe, make_recipe, quicken
from weir.training.run_directory import RECORD, WEIGHTS, RunRecord, read_record
from weir.training.seq2seq.evaluation import generate
from weir.training.seq2seq.experiment import (
    ATTENTION,
    SAMPLES,
    VOCABULARY,
    learn_sides,
    load_model,
    load_sides,
    load_test,
    prepare,
    read_sides,
    write_sides,
)
from weir.training.seq2seq.recipes import QUICK, RECIPES, Seq2SeqRecipe
from weir.training.text.experiment import load_model as load_sequence_model
from weir.training.train import Monitor

CPU = torch.device("cpu")
SIDES = {VOCABULARY.format("source"), VOCABULARY.format("target")}


@pytest.fixture
def small(recipe: Seq2SeqRecipe) -> Seq2SeqRecipe:
    """Three epochs of a few steps, everything switched on."""
    return changed(
        recipe,
        coder={"word_size": 8, "hidden": 12},
        forcing={"end": 0.5},
        search={"beam_width": 2, "most_tokens": 8},
        epochs=3,
        seed=1,
    )


@pytest.fixture
def run(small: Seq2SeqRecipe, tmp_path: Path, silent: Callable[..., Monitor]) -> Path:
    train(small, tmp_path / "run", CPU, silent(), None)
    return tmp_path / "run"


def changed(recipe: Seq2SeqRecipe, **changes: object) -> Seq2SeqRecipe:
    made = change_recipe(recipe, **changes)  # type: ignore[arg-type]
    assert isinstance(made, Seq2SeqRecipe)
    return made


def test_a_run_directory_is_complete(run: Path, small: Seq2SeqRecipe) -> None:
    record = read_record(run)

    left = {path.name for path in run.iterdir()}
    assert left - {ATTENTION} == {WEIGHTS, RECORD, SAMPLES, LEARNING_CURVE, *SIDES}
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
    assert record.recipe == small and record.task == "sequence-to-sequence"
    # Ten words, of which one in the training set may have two targets.
    assert (record.data.validation_rows, record.data.test_rows) == (1, 2)
    assert record.data.train_rows in {7, 8}
    sides = load_sides(run)
    assert record.pairs is not None and record.classes == []
    assert record.pairs.source_words == len(sides.source.vocabulary)
    assert record.pairs.target_words == len(sides.target.vocabulary)


def test_a_loaded_run_has_the_recorded_scores(run: Path) -> None:
    record = read_record(run)
    network, sides, data = load_model(run), load_sides(run), load_test(record)

    assert isinstance(record.recipe, Seq2SeqRecipe)
    for width, name in ((1, "word_error_rate"), (2, "word_error_rate_beam")):
        found = generate(network, data.sources, sides, record.recipe.search, width=width)
        texts = [sides.target.text(each.tokens) for each in found]
        wrong = [text not in own for text, own in zip(texts, data.references, strict=True)]
        assert record.test_metrics[name] == pytest.approx(sum(wrong) / len(wrong))
    assert record.test_accuracy == pytest.approx(1.0 - record.test_metrics["word_error_rate"])


def test_sides_are_learned_from_training_rows_only(
    recipe: Seq2SeqRecipe, words: Path, tmp_path: Path
) -> None:
    test = tmp_path / "test.tsv"
    test.write_text("zzz\tZ Z Z\n")

    problem = prepare(changed(recipe, test=str(test)))

    assert "z" not in problem.sides.source.vocabulary.entries
    assert "Z" not in problem.sides.target.vocabulary.entries


def test_a_beam_of_one_searches_greedily_only(
    small: Seq2SeqRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    record = train(
        changed(small, search={"beam_width": 1}, epochs=1), tmp_path, CPU, silent(), None
    )

    assert not any(name.endswith("_beam") for name in record.test_metrics)


def test_resumed_with_draws_of_its_own_it_ends_as_uninterrupted(
    small: Seq2SeqRecipe, run: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    out = tmp_path / "resumed"

    with pytest.raises(InterruptedRunError):
        train(small, out, CPU, silent(stop_after=4), None)
    train(small, out, CPU, silent(), read_checkpoint(out))

    assert (out / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
    assert read_record(out).test_metrics == read_record(run).test_metrics


@pytest.mark.parametrize(
    ("changes", "most_errors"),
    [
        pytest.param({}, 0.1, id="taught"),
        pytest.param({"forcing": {"start": 0.9, "end": 0.3}}, 0.1, id="with its own draws"),
        # Which letter stood where is harder to keep in a state, and to find with one layer more.
        pytest.param({"coder": {"attends": False}}, 0.5, id="without attention"),
        pytest.param({"coder": {"layers": 2, "decoder_layers": 2}}, 0.5, id="deep"),
    ],
)
def test_it_learns_to_spell_in_capitals(
    changes: dict[str, object],
    most_errors: float,
    tmp_path: Path,
    silent: Callable[..., Monitor],
) -> None:
    path = tmp_path / "words.tsv"
    texts = [a + b + c for a in "abcd" for b in "abcd" for c in "abcd"]
    path.write_text("".join(f"{text}\t{' '.join(text.upper())}\n" for text in texts))
    recipe = make_recipe(
        "pronounce",
        str(path),
        coder={"word_size": 16, "hidden": 32, "dropout": 0.0},
        optimizer={"learning_rate": 0.01},
        average_decay=0.9,
        cpu_bfloat16=False,
        epochs=16,
        batch_size=8,
    )
    assert isinstance(recipe, Seq2SeqRecipe)

    record = train(changed(recipe, **changes), tmp_path / "run", CPU, silent(), None)

    assert record.epochs[-1].loss < record.epochs[0].loss
    # All four letters are as likely: who guesses is wrong three times in four.
    assert record.test_metrics["token_error_rate"] < most_errors


def test_quick_pronouncer_learns_something_of_cmudict(
    tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    quick = change_recipe(
        quicken(make_recipe("pronounce")),
        most_rows=1200,
        most_characters=3,
        epochs=5,
        batch_size=16,
        coder={"word_size": 32, "hidden": 48},
    )

    record = train(quick, tmp_path, CPU, silent(), None)

    # The likeliest phoneme alone is right less than one time in ten.
    best = record.epochs[record.best_epoch - 1]
    assert best.validation_accuracy is not None and best.validation_accuracy > 0.4
    assert record.test_metrics["token_error_rate"] < 0.7


def test_data_that_changed_since_are_noticed(run: Path, words: Path) -> None:
    words.write_text(words.read_text() + "abba\tA B B A\n")

    with pytest.raises(DataError, match=r"SHA-256 was .* when the run was trained"):
        load_test(read_record(run))


def test_a_run_of_one_kind_is_not_taken_for_another(
    run: Path, small_recipe: Seq2SeqRecipe, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    pictures = tmp_path / "pictures"
    train(small_recipe, pictures, CPU, silent(), None)

    with pytest.raises(RunError, match="pronounce: expected a run on sequences, got sequence-to-"):
        load_sequence_model(run)
    for load in (load_model, load_sides):
        with pytest.raises(RunError, match="lenet5: expected a run on pairs, got image-"):
            load(pictures)


def test_weights_of_another_size_are_refused(run: Path) -> None:
    record = json.loads((run / RECORD).read_text())
    record["recipe"]["coder"]["hidden"] += 1
    (run / RECORD).write_text(json.dumps(record))

    with pytest.raises(RunError, match=f"{WEIGHTS}: not the weights of EncoderDecoder"):
        load_model(run)


def test_only_a_network_of_its_own_kind_is_tested(small: Seq2SeqRecipe, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        prepare(small).test(nn.Linear(1, 1), CPU, tmp_path)


DATA = PairData("x", ("ein Hund", "zwei Hunde"), (("a dog",), ("two dogs", "2 dogs")), "0")


def recipe_of(name: str) -> Seq2SeqRecipe:
    return Seq2SeqRecipe.model_validate({**RECIPES[name]("x"), "name": name, "data": "x"})


@pytest.mark.parametrize("name", sorted(QUICK))
def test_sides_come_back_from_a_run_directory(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    sides = learn_sides(DATA, recipe)

    write_sides(sides, tmp_path)

    assert read_sides(tmp_path, recipe) == sides
    assert sides.source.text(sides.source.encode("ein Hund")) == "ein hund"


def test_all_accepted_targets_are_learned_from() -> None:
    assert "2" in learn_sides(DATA, recipe_of("pronounce")).target.vocabulary.entries


@pytest.mark.parametrize("missing", ["vocabulary.target.txt", "subwords.source.model"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    recipe = recipe_of("translate")
    write_sides(learn_sides(DATA, recipe), tmp_path)
    (tmp_path / missing).unlink()

    with pytest.raises(RunError, match=f"{missing}: cannot be read"):
        read_sides(tmp_path, recipe)
