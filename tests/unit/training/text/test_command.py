"""The command line on text files of the user."""

import random
from pathlib import Path

import pytest

from tests.helpers.sequence_files import write_conllu, write_labelled, write_tagged
from weir.training.__main__ import main
from weir.training.run_directory import part_of, read_record
from weir.training.text.experiment import read_texts
from weir.training.text.recipes import SequenceRecipe

FEW = ["--epochs", "2", "--batch-size", "8"]


def test_tags_are_learned_from_lines_of_tokens_and_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_tagged(tmp_path / "rows.txt"), tmp_path / "run"

    code = main(["stress", "--quick", "--data", str(path), "--out", str(out), *FEW])

    printed = capsys.readouterr()
    record = read_record(out)
    assert code == 0 and not printed.err
    assert record.classes == ["DET", "NOUN", "VERB"]
    assert record.data.name == str(path) and len(record.epochs) == 2
    assert "macro F1" in printed.out and "sentence accuracy" in printed.out
    assert " (most frequent tag: 100.00%), " in printed.out
    assert "\nnot better than the baseline: accuracy " in printed.out
    assert record.test_metrics["baseline_accuracy"] == 1.0
    assert "on 12 rows" in printed.out


def test_classes_are_learned_from_lines_of_label_and_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_labelled(tmp_path / "rows.tsv"), tmp_path / "run"
    shape = ["--cell", "gru", "--hidden", "9", "--layers", "2", "--pool", "last"]

    code = main(["question", "--quick", "--data", str(path), "--out", str(out), *FEW, *shape])

    encoder = part_of(read_record(out), SequenceRecipe).encoder
    assert code == 0 and "macro F1" in capsys.readouterr().out
    assert read_record(out).classes == ["cats", "dogs"]
    assert (encoder.cell, encoder.hidden, encoder.layers, encoder.pool) == ("gru", 9, 2, "last")


@pytest.mark.parametrize(
    ("column", "classes"),
    [
        ("upos", ["DET", "NOUN", "VERB"]),
        ("xpos", ["det", "noun", "verb"]),
        ("feats:Number", ["Sing", "_"]),
    ],
)
def test_a_column_of_conllu_is_learned_from_user_files(
    column: str, classes: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    files = [
        str(write_conllu(tmp_path / f"{name}.conllu", rows, rows))
        for name, rows in (("train", 30), ("dev", 9), ("test", 8))
    ]

    order = ["tagger", "--quick", "--data", files[0], "--dev", files[1], "--test", files[2]]
    code = main([*order, "--column", column, "--out", str(out), *FEW])

    record = read_record(out)
    assert code == 0 and record.classes == classes
    data = record.data
    assert (data.train_rows, data.validation_rows, data.test_rows) == (30, 9, 8)


def test_equal_texts_are_on_one_side_of_a_division_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "names.tsv", tmp_path / "run"
    names = [f"{first}{last}" for first in ("an", "be", "cy", "do") for last in ("na", "ta", "li")]
    path.write_text("".join(f"{name[0]}\t{name}\n" for name in names for _ in range(5)))

    code = main(["question", "--quick", "--data", str(path), "--out", str(out), *FEW])

    recipe = part_of(read_record(out), SequenceRecipe)
    texts = read_texts(recipe)
    sides = [set(data.rows) for data in (texts.train, texts.validation, texts.test)]
    assert code == 0 and sum(map(len, sides)) == len(names) == len(set.union(*sides))
    assert "equal rows: 60 of 60 rows are equal to another row; no " in capsys.readouterr().out


def test_test_rows_that_are_training_rows_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_labelled(tmp_path / "rows.tsv"), tmp_path / "run"
    test = tmp_path / "test.tsv"
    test.write_text("".join(path.read_text().splitlines(keepends=True)[:7]) + "dogs\tnew words\n")
    files = ["--data", str(path), "--dev", str(write_labelled(tmp_path / "dev.tsv", 9, 4))]

    code = main(["question", "--quick", *files, "--test", str(test), "--out", str(out), *FEW])

    assert code == 0
    assert "equal rows: 7 of 8 test rows are also training rows" in capsys.readouterr().out
    assert read_record(out).test_notes["equal rows"].startswith("7 of 8 test rows")


def test_test_rows_that_chose_the_epoch_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a test file, that of --dev tests too."""
    path, dev = write_labelled(tmp_path / "rows.tsv"), write_labelled(tmp_path / "dev.tsv", 9, 4)
    order = ["question", "--quick", "--data", str(path), "--dev", str(dev), *FEW]

    assert main([*order, "--out", str(tmp_path / "best")]) == 0
    told = capsys.readouterr().out
    assert main([*order, "--out", str(tmp_path / "last"), "--keep", "last"]) == 0

    assert "test rows: those of --dev, which also chose the epoch, so the score is too" in told
    assert "test rows:" not in capsys.readouterr().out


def write_names(path: Path, rows: int = 60) -> Path:
    """`label<TAB>name`, each name a word of its own; one class is ten times the other."""
    chance = random.Random(0)
    kinds = (("long", "aeiou", 10), ("short", "kstp", 1))
    lines = [
        f"{label}\t{''.join(chance.choices(letters, k=6))}\n"
        for label, letters, share in kinds
        for _ in range(rows * share // 11)
    ]
    path.write_text("".join(lines))
    return path


def test_letters_are_proposed_for_texts_without_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_names(tmp_path / "my names.tsv", 330)
    order = ["question", "--data", str(path), "--quick", *FEW]

    assert main([*order, "--out", str(tmp_path / "words")]) == 0
    (proposal,) = of_words(caplog)
    caplog.clear()
    command = proposal.splitlines()[1].split()
    assert main([*order, "--tokens", "letters", "--out", str(tmp_path / "letters")]) == 0

    words, letters = (read_record(tmp_path / name) for name in ("words", "letters"))
    assert "of the tokens of the validation rows are unknown" in proposal
    assert "100% of the training rows are a single token" in proposal
    assert command[:3] == ["weir", "train", "question"]
    assert f"--data '{path}' --tokens letters --class-weights 0.25 --out " in proposal
    assert not of_words(caplog)
    assert words.test_notes["letters"] == proposal and "letters" not in letters.test_notes
    assert part_of(words, SequenceRecipe).tokens != part_of(letters, SequenceRecipe).tokens
    assert letters.test_accuracy == 1.0 and letters.test_metrics["macro_f1"] == 1.0
    assert words.sequence and letters.sequence
    assert letters.sequence.characters is None and letters.sequence.words == 4 + 9


def test_words_are_fit_for_prose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_labelled(tmp_path / "rows.tsv")

    assert main(["question", "--data", str(path), "--quick", *FEW, "--out", str(tmp_path)]) == 0

    assert not of_words(caplog)


def of_words(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What training said of the words; of these few rows it says more."""
    return [each for each in caplog.messages if not each.startswith("validation: ")]


def test_class_weights_choose_by_macro_f1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_names(tmp_path / "names.tsv", 330), tmp_path / "run"

    order = ["question", "--data", str(path), "--quick", "--tokens", "letters", *FEW]
    code = main([*order, "--class-weights", "1", "--out", str(out)])

    record, printed = read_record(out), capsys.readouterr().out
    scores = [epoch.validation_macro_f1 for epoch in record.epochs]
    assert code == 0 and None not in scores
    assert scores[record.best_epoch - 1] == max(score for score in scores if score is not None)
    assert part_of(record, SequenceRecipe).class_weights == 1.0
    assert printed.count(", macro F1 ") >= 3 + 1


def test_gradient_is_cut_off_where_the_recurrence_has_one_direction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")

    assert (
        main(["row-digits", "--quick", "--epochs", "1", "--truncate-steps", "7", "--out", out]) == 0
    )
    assert main(["question", "--truncate-steps", "7", "--out", f"{out}2"]) == 2
    assert "truncate_steps goes with a recurrent cell of one direction" in capsys.readouterr().err


def test_a_run_resumes_with_the_same_files_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, dev = write_conllu(tmp_path / "a.conllu"), write_conllu(tmp_path / "b.conllu", 9, 1)
    order = ["tagger", "--data", str(path), "--out", str(tmp_path / "run")]
    assert main([*order, "--quick", "--dev", str(dev), *FEW]) == 0

    assert main([*order, "--resume"]) == 0
    assert main([*order, "--resume", "--dev", str(dev)]) == 0
    assert main([*order, "--resume", "--dev", str(path)]) == 2

    assert "the run began with dev " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            "a/X b/Y\nbroken\n",
            "line 2: expected token/TAG with a space between two, got 'broken'",
        ),
        ("yes\tsome text\nno\t\n", "line 2: expected LABEL<TAB>text, got 'no\\t'"),
        ("", "expected lines of text, got none"),
    ],
    ids=["tagged", "labelled", "empty"],
)
def test_a_broken_file_is_named_with_its_line(
    content: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(content)

    code = main(["stress", "--quick", "--data", str(path), "--out", str(tmp_path / "run")])

    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(f"weir: {path}") and found in errors and errors.count("\n") == 1


def test_a_broken_line_of_conllu_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_conllu(tmp_path / "rows.conllu", 2)
    path.write_text(path.read_text() + "1\tword\n")
    number = path.read_text().count("\n")

    assert main(["tagger", "--data", str(path), "--out", str(tmp_path / "run")]) == 2
    assert (
        capsys.readouterr().err
        == f"weir: {path}, line {number}: expected 10 columns between tabs, got 2\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["row-digits", "--height", "32"],
            "row-digits takes no image, which is of recipes for images",
        ),
        (
            ["lenet5", "--hidden", "32"],
            "lenet5 takes no encoder, which is of recipes for sequences",
        ),
        (["lenet5", "--column", "xpos"], "lenet5 takes no column, which is of recipes for sequen"),
        (["lenet5", "--quick"], "lenet5 has no quick form; row-digits, question, tagger, stress"),
        (["row-digits", "--dev", "x"], "dev goes with tokens"),
        (["row-digits", "--tokens", "letters"], "--tokens goes with texts: row-digits reads the"),
        (["tagger", "--tokens", "letters"], "letters go with sequence-classification: tagger tags"),
        (["lenet5", "--tokens", "letters"], "lenet5 takes no tokens, which is of recipes for seq"),
        (["lenet5-1998", "--class-weights", "1"], "class_weights go with cross-entropy, got l"),
        (
            ["question", "--class-weights", "2"],
            "class_weights: Input should be less than or equal to",
        ),
        (["stress", "--pool", "mean"], "pool goes with sequence-class"),
        (["stress", "--cell", "cnn"], "encoder.cell: Input should be 'rnn', 'gru', 'lstm' or"),
        (["stress", "--data", "/no/such"], "/no/such: neither a text set (trec, "),
        (["stress", "--data", "digits"], "digits: neither a text set (trec, "),
        (["row-digits", "--data", "ewt"], "ewt: neither a data set (digits, "),
        (
            ["question", "--column", "xpos"],
            "--column goes with CoNLL-U (ewt, or files that end with ",
        ),
        (
            ["stress", "--column", "upos"],
            "--column goes with CoNLL-U (ewt, or files that end with ",
        ),
        (
            ["tagger", "--column", "lemma"],
            "column: expected upos, xpos, deprel, feats:NAME or a number",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    args: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WEIR_DATA", raising=False)
    data = [] if args[0] != "tagger" else ["--data", str(write_conllu(tmp_path / "rows.conllu"))]

    code = main([*args, *data, "--out", str(tmp_path / "run")])

    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(f"weir: {message}") and errors.count("\n") == 1
