"""Pairs of texts, and how they are held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.training.data.pairs import Pair, PairData, divide_pairs
from weir.training.errors import DataError

LISTED = [Pair("a", "A"), Pair("b", "B"), Pair("a", "AA"), Pair("a", "A")]


def test_a_source_that_comes_again_brings_a_further_target_once() -> None:
    data = PairData.joined("x", LISTED, checksum="0")

    assert data.sources == ("a", "b") and data.references == (("A", "AA"), ("B",))
    assert list(data.pairs()) == [("a", "A"), ("a", "AA"), ("b", "B")]


def test_translations_stay_a_row_a_pair() -> None:
    data = PairData.of("x", LISTED, checksum="0")

    assert len(data) == 4 and list(data.pairs()) == LISTED


def test_rows_are_taken_in_the_order_asked_for() -> None:
    taken = PairData.joined("x", LISTED, checksum="0").take(np.array([1, 0]))

    assert taken.sources == ("b", "a") and taken.references == (("B",), ("A", "AA"))
    assert taken.name == "x" and taken.checksum == "0"


@pytest.mark.parametrize(
    ("sources", "references", "message"),
    [
        (("a",), (), "x: 1 sources do not go with targets of 0"),
        (("a", " "), (("A",), ("B",)), "x, row 1: expected a source, found ' '"),
        (("a",), ((),), "x, row 0: expected targets, found"),
        (("a",), (("A", ""),), "x, row 0: expected targets, found"),
        (("a",), (("A", "A"),), "x, row 0: expected each target once"),
    ],
    ids=["counts", "blank source", "no target", "blank target", "target twice"],
)
def test_what_is_no_set_of_pairs_is_refused(
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
