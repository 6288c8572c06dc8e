"""Pairs of texts, their files, and their split."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.training.data import load_pairs
from weir.training.data.pairs import Pair, PairData, divide_pairs, load_pair_file
from weir.training.errors import DataError

LISTED = [Pair("a", "A"), Pair("b", "B"), Pair("a", "AA"), Pair("a", "A")]


def test_a_source_that_comes_again_brings_a_further_target_once() -> None:
    data = PairData.joined("x", LISTED, checksum="0")

    assert data.sources == ("a", "b") and data.references == (("A", "AA"), ("B",))
    assert list(data.pairs()) == [("a", "A"), ("a", "AA"), ("b", "B")]


def test_translations_stay_a_row_a_pair() -> None:
    data = PairData.of("x", LISTED, checksum="0")

    assert len(data) == 4 and list(data.pairs()) == LISTED


def test_rows_are_taken_in_the_given_order() -> None:
    taken = PairData.joined("x", LISTED, checksum="0").take(np.array([1, 0]))

    assert taken.sources == ("b", "a") and taken.references == (("B",), ("A", "AA"))
    assert taken.name == "x" and taken.checksum == "0"


@pytest.mark.parametrize(
    ("sources", "references", "message"),
    [
        (("a",), (), "x: 1 sources do not go with targets of 0"),
        (("a", " "), (("A",), ("B",)), "x, row 1: expected a source, got ' '"),
        (("a",), ((),), "x, row 0: expected targets, got"),
        (("a",), (("A", ""),), "x, row 0: expected targets, got"),
        (("a",), (("A", "A"),), "x, row 0: expected each target once"),
    ],
    ids=["counts", "blank source", "no target", "blank target", "target twice"],
)
def test_invalid_pair_data_is_refused(
    sources: tuple[str, ...], references: tuple[tuple[str, ...], ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        PairData("x", sources, references, "0")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.integers(0, 99))
def test_rows_of_one_source_stay_together(sources: list[str], seed: int) -> None:
    data = PairData.of("x", [Pair(source, "A") for source in sources], checksum="0")

    division = divide_pairs(data, 0.3, seed)

    kept = {sources[row] for row in division.kept}
    held_out = {sources[row] for row in division.held_out}
    assert not kept & held_out and kept | held_out == set(sources)
    assert kept and bool(held_out) == (len(set(sources)) > 1)
    assert sorted([*division.kept, *division.held_out]) == list(range(len(sources)))
    again = divide_pairs(data, 0.3, seed)
    assert np.array_equal(again.held_out, division.held_out)


def test_the_share_is_one_of_sources() -> None:
    data = PairData.of("x", [Pair(str(row % 100), "A") for row in range(1000)], checksum="0")

    assert len(divide_pairs(data, 0.05, 0).held_out) == 50


def test_a_pair_a_line_and_further_targets(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("read\tR IY D\n\nred\tR EH D \nread\tR EH D\nrow\tR OW\tR AW\n")

    data = load_pair_file(path)

    assert data.name == str(path)
    assert data.sources == ("read", "red", "row")
    assert data.references == (("R IY D", "R EH D"), ("R EH D",), ("R OW", "R AW"))


def test_two_files_go_line_by_line(tmp_path: Path) -> None:
    german, english = tmp_path / "x.de.gz", tmp_path / "x.en"
    german.write_bytes(gzip.compress(b"Ein Hund.\n\nEin Hund.\n"))
    english.write_text("A dog.\n \nOne dog.\n")

    data = load_pair_file(german, english)

    assert list(data.pairs()) == [("Ein Hund.", "A dog."), ("Ein Hund.", "One dog.")]
    assert len(data) == 2 and data.checksum != load_pair_file(english, german).checksum


@pytest.mark.parametrize("line", ["b", "b\t", "\tB", "b\tB\t", "b\t \tB"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(f"a\tA\n{line}\n")

    with pytest.raises(DataError, match=r"x\.tsv, line 2: expected source<TAB>target, got 'b?"):
        load_pair_file(path)


def test_files_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    short, long, blank = tmp_path / "short", tmp_path / "long", tmp_path / "blank"
    short.write_text("a\nb\n")
    long.write_text("a\nb\nc")
    blank.write_text("a\n\n")

    with pytest.raises(DataError, match=r"long: expected 2 lines, as .*short has, got 3"):
        load_pair_file(short, long)
    with pytest.raises(DataError, match=r"blank, line 2: expected what goes with 'b', got ''"):
        load_pair_file(short, blank)
    with pytest.raises(DataError, match=r"blank, line 2: expected what goes with 'b', got ''"):
        load_pair_file(blank, short)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("\n")

    with pytest.raises(DataError, match=r"x\.tsv: expected pairs of text, got none"):
        load_pair_file(path)


def test_a_fifth_of_the_sources_is_the_test_set(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("".join(f"{row % 10}\t{row}\n" for row in range(20)))

    train, test = load_pairs(str(path)), load_pairs(str(path), "test")

    assert len(train) == 8 and len(test) == 2 and not set(train.sources) & set(test.sources)
    assert all(len(targets) == 2 for targets in (*train.references, *test.references))


def test_a_missing_set_or_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("a\tA\nb\tB\n")

    with pytest.raises(DataError, match=r"nowhere: neither a set of pairs .*multi30k.* nor a file"):
        load_pairs("nowhere")
    with pytest.raises(DataError, match=r"x\.tsv: expected the split train or test, got dev"):
        load_pairs(str(path), "dev")
    with pytest.raises(DataError, match="nowhere: expected a file of targets, got none"):
        load_pairs(str(path), target_data="nowhere")
    with pytest.raises(DataError, match="multi30k: has its own targets, got x too"):
        load_pairs("multi30k", target_data="x")
