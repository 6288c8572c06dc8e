"""Stratified splits, and scikit-learn's digits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from weir.training.data import load
from weir.training.data.images import ImageData, divide, draw_rows, joint_checksum
from weir.training.errors import DataError


def test_division_holds_out_a_share_of_each_class() -> None:
    labels = np.array([0] * 10 + [1] * 20 + [2] * 2 + [3], np.int64)

    division = divide(labels, 0.1, seed=5)

    assert np.bincount(labels[division.held_out]).tolist() == [1, 2, 1]
    both = np.concatenate([division.kept, division.held_out])
    assert sorted(both.tolist()) == list(range(len(labels)))


def test_division_depends_on_its_arguments_only() -> None:
    labels = np.arange(100, dtype=np.int64) % 5

    first, again, other = (divide(labels, 0.2, seed) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first.held_out, again.held_out)
    assert first.held_out.tolist() != other.held_out.tolist()


def test_digits_are_all_there_once_and_enlarged() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    source = load_digits()

    assert train.images.shape[1:] == (28, 28, 1) and train.images.dtype == np.uint8
    assert len(train.labels) + len(test.labels) == len(source.target) == 1797
    assert np.bincount(test.labels).min() >= 34
    np.testing.assert_array_equal(
        np.bincount(train.labels) + np.bincount(test.labels), np.bincount(source.target)
    )
    assert train.images.max() == 255 and (train.images[:, :2] == 0).all()


def test_labels_must_fit_the_classes() -> None:
    with pytest.raises(DataError, match="labels must be 0 to 1, got 0 to 2"):
        ImageData("x", np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 2]), ("a", "b"), "")
    with pytest.raises(DataError, match="do not go with labels"):
        ImageData("x", np.zeros((2, 1, 1, 1), np.uint8), np.array([0]), ("a", "b"), "")


def test_a_named_set_is_not_resized() -> None:
    with pytest.raises(DataError, match="expected pictures of 32 x 32 x 1, got 28 x 28 x 1"):
        load("digits", height=32, width=32)


def test_fewer_rows_are_drawn_by_the_seed_and_stay_in_order() -> None:
    first, again, other = (draw_rows(50, 20, seed) for seed in (1, 1, 2))

    assert first is not None and again is not None and other is not None
    assert len(set(first.tolist())) == 20 and (np.diff(first) > 0).all()
    assert first.tolist() == again.tolist() != other.tolist()
    assert draw_rows(20, 20, 1) is None and draw_rows(20, None, 1) is None


def test_sets_of_the_same_files_have_their_checksum_and_others_one_of_all() -> None:
    assert joint_checksum("a", "a", "a") == "a"
    assert len({joint_checksum("a", "a", "b"), joint_checksum("a", "b", "a"), "a", "b"}) == 4


@pytest.mark.parametrize("seed", range(5))
def test_rows_with_equal_contents_stay_together(seed: int) -> None:
    contents = [f"name {row % 40}" for row in range(200)]
    labels = np.array([row % 40 < 30 for row in range(200)], np.int64)

    division = divide(labels, 0.2, seed, contents)

    kept, held_out = (
        {contents[row] for row in rows} for rows in (division.kept, division.held_out)
    )
    assert kept.isdisjoint(held_out)
    # Each text has five rows: a fifth of 50 and of 150 rows are whole texts.
    assert np.bincount(labels[division.held_out]).tolist() == [10, 30]


def test_a_frequent_content_does_not_leave_training_without_rows() -> None:
    labels = np.array([0] * 11 + [1] * 4, np.int64)
    contents = ["same"] * 10 + ["other"] + ["only"] * 4

    for seed in range(5):
        division = divide(labels, 0.2, seed, contents)

        # A class whose rows are all equal stays where it is trained.
        assert [contents[row] for row in division.held_out] == ["other"]


def test_a_single_content_is_divided_all_the_same() -> None:
    labels = np.zeros(10, np.int64)

    division = divide(labels, 0.2, 0, ["same"] * 10)

    assert division.held_out.tolist() == divide(labels, 0.2, 0).held_out.tolist()
    assert len(division.held_out) == 2


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.floats(0.05, 0.9),
    st.integers(0, 99),
)
def test_different_contents_divide_as_rows_do(labels: list[int], share: float, seed: int) -> None:
    rows = np.array(labels, np.int64)

    division, plain = divide(rows, share, seed, list(range(len(rows)))), divide(rows, share, seed)

    assert division.held_out.tolist() == plain.held_out.tolist()
    assert division.kept.tolist() == plain.kept.tolist()
