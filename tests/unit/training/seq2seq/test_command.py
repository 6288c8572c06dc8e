"""The command line on pairs of the user."""

import gzip
from pathlib import Path

import pytest

from weir.training.__main__ import main
from weir.training.run_directory import part_of, read_record
from weir.training.seq2seq.experiment import ATTENTION
from weir.training.seq2seq.recipes import Seq2SeqRecipe

FEW = ["--epochs", "2", "--batch-size", "8"]
SMALL = ["--hidden", "8", "--beam", "2"]
SENTENCES = [
    f"{who} {what} {where}"
    for who in ("ein hund", "eine katze")
    for what in ("schläft", "sitzt", "läuft", "springt", "steht")
    for where in ("im haus", "am see")
]


def write_lines(path: Path, lines: list[str]) -> Path:
    text = "".join(f"{line}\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


def test_pairs_are_learned_from_lines_of_source_and_target(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shape = ["--cell", "lstm", "--layers", "2", "--no-attention", *SMALL]
    shape += ["--teacher-forcing", "0.9", "0.4"]

    code = main(["pronounce", "--quick", "--data", str(words), "--out", str(out), *FEW, *shape])

    printed = capsys.readouterr()
    recipe = part_of(read_record(out), Seq2SeqRecipe)
    coder = recipe.coder
    assert code == 0 and not printed.err
    assert (recipe.forcing.start, recipe.forcing.end) == (0.9, 0.4)
    assert (coder.cell, coder.hidden, coder.layers, coder.attends) == ("lstm", 8, 2, False)
    assert recipe.search.beam_width == 2 and not (out / ATTENTION).exists()
    assert "test word error rate " in printed.out and " %, token error rate " in printed.out
    assert " %, by beam of 2: " in printed.out and " on 2 rows (validation " in printed.out
    assert main(["pronounce", "--data", str(words), "--out", str(out), "--resume"]) == 0


def test_two_files_per_set_are_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    targets = [line.upper() for line in SENTENCES]
    for name, rows in (("train", slice(0, 14)), ("dev", slice(14, 17)), ("test", slice(17, 20))):
        write_lines(Path(f"{name}.de"), SENTENCES[rows])
        write_lines(Path(f"{name}.en.gz"), targets[rows])
    files = ["--data", "train.de", "--target-data", "train.en.gz", "--dev", "dev.de"]
    files += ["--dev-target", "dev.en.gz", "--test", "test.de", "--test-target", "test.en.gz"]
    changed = [*files, "--out", "run", *FEW, "--hidden", "8", "--beam", "1"]

    code = main(["translate", "--quick", *changed])

    record = read_record(Path("run"))
    recipe, data = part_of(record, Seq2SeqRecipe), record.data
    assert code == 0
    assert (data.train_rows, data.validation_rows, data.test_rows) == (14, 3, 3)
    given = (recipe.target_data, recipe.dev_target, recipe.test_target)
    assert given == tuple(str(tmp_path / f"{name}.en.gz") for name in ("train", "dev", "test"))


def test_bleu_is_printed_with_its_signature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [f"{a}{b} {b}{a}\t{b}{a} {a}{b}" for a in letters for b in letters]
    path, out = write_lines(tmp_path / "rows.tsv", rows), tmp_path / "run"

    order = ["translate", "--quick", "--data", str(path), "--out", str(out), *SMALL]
    code = main([*order, "--epochs", "1"])

    printed, record = capsys.readouterr(), read_record(out)
    assert code == 0 and not printed.err
    assert "test BLEU " in printed.out and ", by beam of 2: " in printed.out
    assert set(record.test_metrics) == {"bleu", "bleu_beam", "baseline_bleu"}
    assert f"\nsacrebleu: {record.test_notes['sacrebleu']}\n" in printed.out


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("ab\tA B\nbroken\n", "line 2: expected source<TAB>target, got 'broken'"),
        ("ab\tA B\n\nba\t\n", "line 3: expected source<TAB>target, got 'ba\\t'"),
        ("", "expected pairs of text, got none"),
    ],
    ids=["no tab", "no target", "empty"],
)
def test_a_broken_file_is_named_with_its_line(
    content: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(content)

    code = main(["pronounce", "--quick", "--data", str(path), "--out", str(tmp_path / "run")])

    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(f"weir: {path}") and found in errors and errors.count("\n") == 1


def test_two_files_that_do_not_go_together_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = write_lines(tmp_path / "a", ["x", "y"])
    short = write_lines(tmp_path / "b", ["X"])
    blank = write_lines(tmp_path / "c", ["X", ""])
    order = ["pronounce", "--data", str(sources), "--out", str(tmp_path / "run"), "--target-data"]

    assert main([*order, str(short)]) == 2
    assert main([*order, str(blank)]) == 2
    assert main([*order, str(tmp_path / "none")]) == 2

    assert capsys.readouterr().err.splitlines() == [
        f"weir: {short}: expected 2 lines, as {sources} has, got 1",
        f"weir: {blank}, line 2: expected what goes with 'y', got ''",
        f"weir: {tmp_path / 'none'}: expected a file of targets, got none",
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lenet5", "--beam", "3"], "lenet5 takes no search, which is of recipes for pairs, got"),
        (["lenet5", "--with-stress"], "lenet5 takes no stress, which is of recipes for pairs"),
        (["question", "--no-attention"], "question takes no coder, which is of recipes for pairs"),
        (["ar", "--target-data", "x"], "ar takes no target_data, which is of recipes for pairs"),
        (["ar", "--dev", "x"], "ar takes no dev, which is of recipes for sequences and pairs, got"),
        (["pronounce", "--pool", "mean"], "pronounce takes no encoder, which is of recipes for se"),
        (
            ["pronounce", "--lags", "3"],
            "pronounce takes no network, which is of recipes for series",
        ),
        (["pronounce", "--height", "3"], "pronounce takes no image, which is of recipes for imag"),
        (["pronounce", "--column", "x"], "pronounce takes no column, which is of recipes for seq"),
        (["pronounce", "--log-gradients"], "pronounce: gradients by time lag are of sequences"),
        (["question", "--lags", "3"], "question takes no network, which is of recipes for series"),
        (["pronounce", "--cell", "rnn"], "coder.cell: Input should be 'gru' or 'lstm', got 'rnn'"),
        (["pronounce", "--cell", "tdnn"], "coder.cell: Input should be 'gru' or 'lstm', got 'tdn"),
        (["pronounce", "--beam", "0"], "search.beam_width: Input should be greater than or equal"),
        (["pronounce", "--dev-target", "x"], "dev_target goes with dev"),
        (["pronounce", "--target-data", "x"], "cmudict-pronounce: has its own targets, got /"),
        (["pronounce", "--teacher-forcing", "1", "2"], "forcing.end: Input should be less than or"),
        (
            ["lenet5", "--teacher-forcing", "1", "0"],
            "lenet5 takes no forcing, which is of recipes for p",
        ),
        (
            ["pronounce", "--source-language", "de"],
            "--source-language goes with multi30k, got it for cmudict-",
        ),
        (
            ["pronounce", "--target-language", "fr"],
            "--target-language goes with multi30k, got it for cmudict-",
        ),
        (
            ["pronounce", "--data", "g014b2b", "--with-stress"],
            "--with-stress goes with cmudict-pronounce, got it for g0",
        ),
        (
            ["translate", "--with-stress"],
            "--with-stress goes with cmudict-pronounce, got it for multi30k",
        ),
        (["translate", "--source-language", "es"], "source_language: Input should be 'de', 'en' "),
        (["translate", "--target-language", "de"], "multi30k: expected two languages, got de"),
        (["pronounce", "--data", "/no/such"], "/no/such: neither a set of pairs (cmudict-pronoun"),
        (["pronounce", "--test", "/no/such"], "/no/such: expected a file, got none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*args, "--out", str(tmp_path / "run")])

    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(f"weir: {message}") and errors.count("\n") == 1
