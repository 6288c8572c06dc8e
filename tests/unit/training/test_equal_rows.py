"""Equal rows are counted, by the sides that they are on."""

from weir.training.equal_rows import EQUAL_ROWS, describe_equal_rows


def test_different_rows_need_no_note() -> None:
    assert describe_equal_rows("abc", "d", "ef") == {}


def test_test_rows_that_are_training_rows_are_counted() -> None:
    note = describe_equal_rows(["a"] * 3 + ["b"], ["b", "c"], ["a", "a", "d"])

    assert note == {
        EQUAL_ROWS: "2 of 3 test rows are also training rows; "
        "1 of 2 validation rows are also training rows"
    }


def test_rows_that_are_kept_together_are_counted() -> None:
    assert describe_equal_rows("aab", "cc", "dee") == {
        EQUAL_ROWS: "6 of 8 rows are equal to another row; no training row is also a validation or "
        "test row"
    }
