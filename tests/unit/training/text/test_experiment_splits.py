"""The training, validation and test sets of a run on sequences."""

from pathlib import Path

import pytest

from tests.helpers.sequence_files import write_conllu, write_labelled, write_tagged
from tests.unit.training.text.conftest import quick
from weir.training.data import TextData, load
from weir.training.errors import DataError
from weir.training.splits import Splits
from weir.training.text.experiment import read_pictures, read_texts
from weir.training.text.recipes import SequenceRecipe


def rows_of(texts: Splits[TextData]) -> list[tuple[str, ...]]:
    return [row for part in (texts.train, texts.validation, texts.test) for row in part.rows]


def test_one_file_is_parted_in_three(tmp_path: Path) -> None:
    path = tmp_path / "all.txt"
    path.write_text("".join(f"word{row}/T\n" for row in range(100)))

    texts = read_texts(quick("stress", str(path)))

    assert sorted(rows_of(texts)) == sorted((f"word{row}",) for row in range(100))
    assert len(texts.test.rows) == 20 and texts.validation.rows and texts.train.rows


def test_dev_is_tested_on_too_where_no_test_file_is_named(tmp_path: Path) -> None:
    path, dev = write_conllu(tmp_path / "a.conllu", 30), write_conllu(tmp_path / "b.conllu", 9, 1)

    texts = read_texts(quick("tagger", str(path), dev=str(dev)))

    assert len(texts.train.rows) == 30
    assert len(texts.validation.rows) == 9 and texts.validation.rows == texts.test.rows


def test_three_files_are_used_completely(tmp_path: Path) -> None:
    path = write_tagged(tmp_path / "a.txt", 30)
    dev, test = write_tagged(tmp_path / "b.txt", 9, 1), write_tagged(tmp_path / "c.txt", 8, 2)

    texts = read_texts(quick("stress", str(path), dev=str(dev), test=str(test)))

    assert [len(part.rows) for part in (texts.train, texts.validation, texts.test)] == [30, 9, 8]


def test_test_file_alone_leaves_validation_to_the_training_rows(tmp_path: Path) -> None:
    path, test = write_labelled(tmp_path / "a.tsv", 40), write_labelled(tmp_path / "b.tsv", 10, 1)

    texts = read_texts(quick("question", str(path), test=str(test)))

    assert len(texts.train.rows) + len(texts.validation.rows) == 40
    assert len(texts.test.rows) == 10


def test_checksum_tells_each_file(tmp_path: Path) -> None:
    path, dev = write_tagged(tmp_path / "a.txt"), write_tagged(tmp_path / "b.txt", 9, 1)
    recipe = quick("stress", str(path), dev=str(dev))
    before = read_texts(recipe).checksum

    write_tagged(dev, 9, 2)

    assert read_texts(recipe).checksum != before


@pytest.mark.parametrize("rows", [2, 7, 1000])
def test_training_rows_are_thinned_by_the_seed(tmp_path: Path, rows: int) -> None:
    path = str(write_tagged(tmp_path / "a.txt", 60))
    whole = read_texts(quick("stress", path))

    thinned, again = (read_texts(quick("stress", path, most_rows=rows)) for _ in range(2))

    assert len(thinned.train.rows) == min(rows, len(whole.train.rows))
    assert set(thinned.train.rows) <= set(whole.train.rows)
    assert thinned.train.rows == again.train.rows
    assert thinned.validation.rows == whole.validation.rows


def test_pictures_are_parted_without_loss() -> None:
    pictures = read_pictures(quick("row-digits", most_rows=100_000))

    train, test = load("digits", "train"), load("digits", "test")
    together = [*pictures.train.images, *pictures.validation.images]
    assert sorted(each.tobytes() for each in together) == sorted(
        each.tobytes() for each in train.images
    )
    assert (pictures.test.images == test.images).all()


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        ("question", "a\tone\nb\tother\n", {}, "too few rows to hold some out"),
        ("stress", "a/X b/Y\n", {}, "too few rows to hold some out"),
        ("stress", "a/X\nb/Y\n", {}, "too few rows to hold some out"),
        ("tagger", "a\tone\nb\tother\n", {}, "tagger needs a tag for each token, got a label"),
        ("question", "a/X\n", {}, "question needs a label for each row, got one for each token"),
        ("stress", "a/X\n", {"dev": "/no/such"}, "/no/such: expected a file, got none"),
    ],
    ids=["a row a class", "a sentence", "two sentences", "labelled", "tagged", "no dev"],
)
def test_rows_that_will_not_do_are_refused(
    name: str, content: str, changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(content)

    with pytest.raises(DataError, match=message):
        read_texts(quick(name, str(path), **changes))


def test_labels_of_another_file_must_be_known(classifying: SequenceRecipe, tmp_path: Path) -> None:
    other = tmp_path / "other.tsv"
    other.write_text("feline\tcat a\ncanine\tdog a\n")

    with pytest.raises(DataError, match=r"other.tsv: expected labels .* 'cats', .* as 'canine'"):
        read_texts(classifying.model_copy(update={"test": str(other)}))
